import json

import pytest

from benchmark.docs import COMMENT
from tests.performance import bench
from tests.performance.figures import Figure, fill, from_json, name_slower, tabulate, to_json


def sections(**changes):
    """Figures of one case, some of them changed."""
    row = {
        "stacks": Figure("ratio", (7.0, 8.0, 9.0)),
        "compiled": Figure("ratio", (25.0,)),
        "outside": Figure("fraction", (0.05,)),
        "start": Figure("seconds", (0.5,)),
        "other": None,
    }
    return {"part": {"case": row | changes}}


def test_figures_are_the_same_after_they_were_stored():
    assert from_json(json.loads(json.dumps(to_json(sections())))) == sections()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"stacks": Figure("ratio", (7.0,))}, []),
        ({"stacks": Figure("ratio", (6.9,))}, ["part, case, stacks: was 8×, is 6.9×"]),
        ({"compiled": Figure("ratio", (80.0,)), "start": Figure("seconds", (9.0,))}, []),
        ({"compiled": None}, ["part, case, compiled: was 25×, is not measured any more"]),
        ({"outside": Figure("fraction", (0.1,))}, []),
        ({"outside": Figure("fraction", (0.2,))}, ["part, case, outside: was 5.0%, is 20.0%"]),
    ],
)
def test_what_is_more_than_15_percent_slower_is_named(changes, named):
    assert name_slower(sections(), sections(**changes)) == named


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The bench with figures in the place of measurements, and a README with a table."""
    figures = sections()["part"]
    monkeypatch.setattr(bench, "PARTS", {"part": lambda: figures})
    for name in ("STORED", "NEW", "README"):
        monkeypatch.setattr(bench, name, tmp_path / name.lower())
    bench.README.write_text("Before.\n\n<!-- performance.json part -->\n| old |\n\nAfter.\n")
    return figures


def test_figures_replace_stored_ones_and_fill_readme(measured):
    bench.STORED.write_text('{"against": 1}')
    assert bench.main([]) == 0
    stored = json.loads(bench.STORED.read_bytes())
    assert (stored["against"], from_json(stored["figures"])) == (1, {"part": measured})
    assert not bench.NEW.exists()
    assert tabulate(measured) in bench.README.read_text()
    assert "old" not in bench.README.read_text()


def test_slower_figures_stand_beside_the_stored_ones_until_they_are_accepted(measured, capsys):
    assert bench.main([]) == 0
    files = [path.read_bytes() for path in (bench.STORED, bench.README)]
    measured["case"]["compiled"] = Figure("ratio", (10.0,))
    assert bench.main([]) == 1
    assert "slower: part, case, compiled: was 25×, is 10×" in capsys.readouterr().out
    assert [path.read_bytes() for path in (bench.STORED, bench.README)] == files
    assert bench.main(["accept"]) == 0
    assert from_json(json.loads(bench.STORED.read_bytes())["figures"]) == {"part": measured}
    assert "| 10× |" in bench.README.read_text()


def test_readme_has_the_stored_figures():
    page, stored = bench.README.read_text(), json.loads(bench.STORED.read_bytes())
    assert fill(page, stored) == page
    shown = [name for _, file, name in COMMENT.findall(page) if file == bench.STORED.name]
    assert set(shown) == {"made", *bench.PARTS}

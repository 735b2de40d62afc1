"""The table of files to touch in `CONTRIBUTING.md` is true."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_, _, *ROWS = (line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("|"))
TABLE = "\n".join(ROWS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w.-]+/[\w./-]*)`", TABLE))))
def test_every_path_in_the_table_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "path"), re.findall(r"`([A-Z_]+)` in `([\w./-]+)`", TABLE))
def test_every_name_in_the_table_is_assigned_in_its_file(name, path):
    assert re.search(rf"^{name}\b.* = ", (ROOT / path).read_text(), re.MULTILINE)


def test_the_table_has_rows_with_paths():
    assert len(ROWS) > 5
    assert all(re.search(r"`[\w.-]+/", row) for row in ROWS)

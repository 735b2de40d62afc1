"""What `make gpu` measures, on the CPU and of tiny sizes."""

import json

import pytest

from tests.performance import gpu
from tests.performance.gpu_parts import Scale


@pytest.mark.parametrize("part", gpu.PARTS)
def test_every_part_measures(part):
    result = gpu.PARTS[part][0](Scale("cpu", tiny=True))
    assert json.loads(json.dumps(result, default=float))


def test_parts_fit_into_eight_minutes():
    assert sum(limit for _, limit in gpu.PARTS.values()) < 480


def test_what_is_known_is_stored_after_each_part(monkeypatch, tmp_path, capfd):
    def run(part, arguments, limit):
        if part == "second":
            assert json.loads(stored.read_text())["parts"] == {"first": {"seconds": 1.0}}
            return {"failed": "took longer than 1 s"}
        return {"seconds": 1.0}

    stored = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "PARTS", {"first": (None, 1), "second": (None, 1)})
    monkeypatch.setattr(gpu, "run", run)
    assert gpu.main(["--device", "cpu", "--tiny"], stored) == 1
    found = json.loads(stored.read_text())
    assert found["made"]["device"] == "cpu"
    assert list(found["parts"]) == ["first", "second"]


def test_a_part_that_takes_too_long_or_fails_says_so():
    assert gpu.run("metanetworks", ["--device", "cpu", "--tiny"], 0.1) == {"failed": "took longer than 0.1 s"}
    assert "there is no 'tpu' here" in str(gpu.run("metanetworks", ["--device", "tpu"], 60)["failed"])

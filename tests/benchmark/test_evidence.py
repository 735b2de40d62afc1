import sys

from benchmark.evidence import evidence


def test_the_command_tells_nothing_of_where_a_machine_keeps_its_files(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/bin/asymzoo", "benchmark", "run", "zoos/a", "--data-dir", "/home/me/mnist"])
    assert evidence()["command"] == "asymzoo benchmark run zoos/a --data-dir mnist"

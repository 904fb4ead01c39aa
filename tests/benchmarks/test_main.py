"""The runner of the benchmarks: which there are, what a row has, and that one failure loses no other figure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import __main__ as runner
from benchmarks.chain import highest_rate

ROW = {"benchmark": "fake", "case": "one", "value": 2.5, "unit": "µs", "against": "nothing", "ratio": 2.0}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Benchmarks of which one works and one fails."""

    def fails(quick: bool) -> list[dict[str, Any]]:
        raise RuntimeError("no receive buffer")

    for name, run in (("fake", lambda quick: [ROW | {"quick": quick}]), ("broken", fails)):
        module = ModuleType(f"benchmarks.{name}")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)
    monkeypatch.setattr(runner, "available", lambda: ["broken", "fake"])
    return sys.modules["benchmarks.fake"]


def test_the_promised_benchmarks_are_there() -> None:
    promised = ["udp", "integrate", "write", "getdata", "grafana", "chain", "latency"]
    assert [name for name in runner.available() if name in promised] == promised


@pytest.mark.usefixtures("fake")
def test_rows_have_the_agreed_keys_and_go_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "rows.json"
    assert runner.main(["fake", "--json", str(target)]) == 0
    assert json.loads(target.read_text()) == [ROW | {"floor_share": None}]
    assert "2.00 ×" in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_one_failure_keeps_the_other_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "rows.json"
    assert runner.main(["all", "--json", str(target)]) == 1
    assert [row["benchmark"] for row in json.loads(target.read_text())] == ["fake"]
    assert "broken: RuntimeError: no receive buffer" in capsys.readouterr().err


def test_an_unknown_name_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runner.main(["chian"])
    assert "chain" in capsys.readouterr().err


@pytest.mark.parametrize("true_rate", [50.0, 300.0, 599.0])
def test_the_search_finds_the_highest_rate(true_rate: float) -> None:
    tried: list[float] = []

    def attempt(rate: float) -> float | None:
        tried.append(rate)
        return rate if rate <= true_rate else None

    best = highest_rate(attempt, 600.0, rounds=8)
    assert true_rate - 600.0 / 2**6 <= best <= true_rate
    assert len(tried) == 8


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.001234, "0.00123"), (12.345, "12.3"), (1234.5, "1,234"), (1e7, "10,000,000")]
)
def test_figures_are_short(value: float | None, shown: str) -> None:
    assert runner.figure(value) == shown

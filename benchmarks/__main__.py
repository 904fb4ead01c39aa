"""``./run bench [NAME|all] [--json FILE] [--quick]``: run benchmarks, print a table, store the rows."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import benchmarks

Row = dict[str, Any]
KEYS = ("benchmark", "case", "value", "unit", "against", "ratio", "floor_share")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; return the exit status."""
    known = available()
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure this project against the alternatives.")
    parser.add_argument("name", nargs="?", default="all", choices=["all", *known], help="which one (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the rows there as a JSON list")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure to quote")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    failed: list[str] = []
    for name in known if options.name == "all" else [options.name]:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows.extend(measure(name, options.quick))
        except Exception as error:  # one benchmark that fails must not lose the figures of the others
            failed.append(f"{name}: {type(error).__name__}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)
    if failed:
        print("\n".join(["failed:", *failed]), file=sys.stderr)
    return 1 if failed else 0


def available() -> list[str]:
    """Names of the benchmarks, in the order in which a frame meets them."""
    way = ["udp", "convert", "integrate", "write", "writer", "getdata", "grafana", "chain", "latency"]
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_")]
    return sorted(names, key=lambda name: (way.index(name) if name in way else len(way), name))


def measure(name: str, quick: bool) -> list[Row]:
    """Run one benchmark; return its rows with exactly the agreed keys."""
    rows = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
    return [{key: row.get(key, name if key == "benchmark" else None) for key in KEYS} for row in rows]


def show(rows: list[Row]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("benchmark", "case", "ours", "against", "ratio", "of what is possible"):
        table.add_column(title, justify="right" if title in ("ours", "ratio") else "left")
    for row in rows:
        table.add_row(
            str(row["benchmark"]),
            str(row["case"]),
            f"{figure(row['value'])} {row['unit']}",
            str(row["against"] or ""),
            "" if row["ratio"] is None else f"{row['ratio']:.2f} ×",
            "" if row["floor_share"] is None else f"{100 * row['floor_share']:.0f} %",
        )
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)


def figure(value: float | None) -> str:
    """Return three significant digits, or all of a larger whole number."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())

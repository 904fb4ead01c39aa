"""``sisockdaq check``: files against their definitions, and against what each known reader demands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sisockdaq.cli._options import AsJson
from sisockdaq.errors import FileUnreadable

if TYPE_CHECKING:
    from sisockdaq.nexus.check import Finding, Report

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Add ``check``."""
    app.command()(check)


def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="Master files and files of integrated frames, whoever wrote them.", metavar="FILE…"),
    ],
    asked: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            help="Check for this definition or reader only (NXmx, NXazint1d, NXazint2d, NXcanSAS, neggia, durin, "
            "fabio, Albula, CrystFEL, nxmx); may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a file lacks, and for whom.

    Exit status 0: nothing that is required is missing; 1: something is, or a file cannot be read.
    """
    from sisockdaq.nexus.check import check_file  # here: HDF5 takes a while to load

    reports: list[Report] = []
    unreadable: dict[str, FileUnreadable] = {}
    for path in files:
        try:
            reports.append(check_file(path, asked or ()))
        except FileUnreadable as error:
            unreadable[str(path)] = error
    if as_json:
        shown = [report.to_dict() for report in reports]
        shown += [{"path": path, "error": reason.message} for path, reason in unreadable.items()]
        typer.echo(json.dumps(shown, indent=2))
    else:
        for report in reports:
            _show(report)
        for reason in unreadable.values():
            typer.echo(str(reason), err=True)
    if unreadable or any(report.failed for report in reports):
        raise typer.Exit(1)


def _show(report: Report) -> None:
    typer.echo(f"{report.path}: {report.about}")
    required = [each for each in report.findings if each.required_by]
    advice = [each for each in report.findings if not each.required_by]
    for finding in required:
        typer.echo(f"  {_line(finding)}   → {', '.join(finding.required_by)}")
    if advice:
        typer.echo("  recommended:")
    for finding in advice:
        typer.echo(f"    {_line(finding)}   ({', '.join(finding.by)})")
    if report.passed:
        typer.echo(f"  good for {', '.join(report.passed)}")
    if report.failed:
        typer.echo(f"  not for {', '.join(report.failed)}")


def _line(finding: Finding) -> str:
    return f"{finding.where} {finding.what}"

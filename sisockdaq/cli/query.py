"""The commands that look at a running network and take data: nodes, fields, get, watch, plot, acquire, ledger."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sisockdaq import drawing
from sisockdaq.cli._options import AsJson
from sisockdaq.cli._reading import (
    Last,
    Network,
    clock,
    connect,
    moment,
    print_csv,
    print_json,
    print_samples,
    seconds,
)
from sisockdaq.errors import AcquisitionRefused, ConfigurationError

if TYPE_CHECKING:
    from sisockdaq.client import Client, FieldData, Run
    from sisockdaq.frames.ledger import Ledger
    from sisockdaq.frames.raw import RawMode

__all__ = ["add_commands"]

_PIPE_WIDTH = 250

FieldNames = Annotated[list[str], typer.Argument(help="Full names, as integrator::total.", metavar="NODE::FIELD...")]
FieldName = Annotated[str, typer.Argument(help="Full name, as integrator::curve.", metavar="NODE::FIELD")]


class Raw(StrEnum):
    """Where raw packets go."""

    BESIDE = "beside"
    INSTEAD = "instead"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for function in (nodes, fields, get, watch, plot, acquire, ledger):
        app.command()(function)


def nodes(site: Network = None, as_json: AsJson = False) -> None:
    """Show which nodes are on the network."""
    with connect(site) as client:
        table = client.nodes()
    if as_json:
        print_json([asdict(row) for row in table])
    elif not table:
        typer.echo("no node is on the network")
    else:
        _table(
            ["node", "type", "uptime", "description"],
            [[row.name, (row.type or "-").rpartition(":")[2], _age(row.uptime), row.description] for row in table],
        )


def fields(
    node: Annotated[str, typer.Argument(help="Name of a node; `sisockdaq nodes` shows them.")],
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Show what a node serves: names, types, units, timelines."""
    with connect(site) as client:
        table = client.fields(node)
    if as_json:
        print_json({"fields": [asdict(row) for row in table], "problems": table.problems})
        return
    rows = [
        [
            row.name,
            " × ".join(map(str, row.shape)) if row.shape else row.type,
            row.units or "",
            row.timeline,
            "" if row.interval is None else f"{row.interval:.4g} s",
            row.description or "",
        ]
        for row in table
    ]
    _table(["field", "type", "units", "timeline", "interval", "description"], rows)
    for problem in table.problems:
        typer.echo(f"! {problem}", err=True)


def get(
    names: FieldNames,
    last: Last = None,
    start: Annotated[str | None, typer.Option(help="Begin: 2026-05-01T12:00, UNIX seconds, or -1h.")] = None,
    end: Annotated[str | None, typer.Option(help="End, in the same forms; default now.")] = None,
    points: Annotated[int | None, typer.Option(help="At most so many samples; extremes are kept.", min=1)] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Print samples, archived and live in one piece: `sisockdaq get integrator::total --last 1h --csv`."""
    first, until = _span(last, start, end)
    with connect(site) as client:
        data = client.get(*names, start=first, end=until, max_points=points)
    if as_csv:
        print_csv(data)
        for problem in data.problems:
            typer.echo(f"! {problem}", err=True)
    elif as_json:
        found = {
            name: {"t": one.t, "values": one.values, "units": one.units, "finalized_until": one.finalized_until}
            for name, one in data.items()
        }
        print_json({"fields": found, "problems": data.problems})
    else:
        print_samples(data)


def watch(
    name: FieldName,
    latest: Annotated[bool, typer.Option("--latest", help="Pass over samples rather than fall behind.")] = False,
    count: Annotated[int | None, typer.Option(help="End after so many samples.", min=1)] = None,
    timeout: Annotated[str | None, typer.Option(help="End when none comes for so long: 10s.")] = None,
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Print samples as they are made, and say what was missed. Ctrl-C ends it."""
    wait = seconds(timeout) if timeout else None
    with (
        connect(site) as client,
        client.watch(name, "latest" if latest else "lossless", timeout=wait) as samples,
    ):
        for number, sample in enumerate(samples, 1):
            if as_json:
                gap = None if sample.gap is None else {**asdict(sample.gap), "text": str(sample.gap)}
                print_json({"t": sample.t, "value": sample.value, "skipped": sample.skipped, "gap": gap})
            else:
                if sample.gap is not None:
                    typer.echo(f"! {sample.gap}", err=True)
                passed = f"   ({sample.skipped} passed over)" if sample.skipped else ""
                typer.echo(f"{clock(sample.t)}  {_brief(sample.value)} {sample.units or ''}{passed}".rstrip())
            if count is not None and number >= count:
                return


def plot(
    name: FieldName,
    last: Last = None,
    log: Annotated[
        bool | None,
        typer.Option("--log/--linear", help="Scale of the values. Default: as fits them.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Draw each new curve or image.")] = False,
    width: Annotated[int | None, typer.Option(help="Characters across.", min=20)] = None,
    height: Annotated[int | None, typer.Option(help="Lines.", min=4)] = None,
    site: Network = None,
) -> None:
    """Draw a series, the newest curve or the newest image in the terminal."""
    size = shutil.get_terminal_size((100, 30))
    room: dict[str, Any] = {"width": width or size.columns, "height": height or max(min(size.lines - 3, 40), 8)}
    with connect(site) as client:
        kinds = {row.name: row.type for row in client.fields(name.partition("::")[0])}
        if kinds.get(name.partition("::")[2]) != "array":
            data = client.get(name, start=_span(last or "10m", None, None)[0], max_points=4 * room["width"])
            typer.echo(_drawn_series(data[name], log, room))
        elif follow:
            _follow(client, name, log, room)
        else:
            shown = client.get(name, start=-seconds(last) if last and last != "all" else 1.0, max_points=1)[name]
            if not len(shown):
                raise ConfigurationError(f"{name} has no sample yet", remedy=f"`sisockdaq watch {name}` waits for one")
            typer.echo(_drawn_array(name, shown.values[-1], shown.axis, float(shown.t[-1]), shown.units, log, room))


def acquire(
    name: Annotated[str, typer.Argument(help="Of the acquisition and its files.")],
    frames: Annotated[int | None, typer.Option(help="How many; without it until Ctrl-C.", min=1)] = None,
    writer: Annotated[str | None, typer.Option(help="The node that writes. Default: the only writer.")] = None,
    directory: Annotated[str | None, typer.Option(help="Folder, instead of the writer's own.")] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(help="A fact for the file, as sample=LaB6; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    raw: Annotated[
        Raw | None, typer.Option(help="Record the detector's packets beside or instead of images, to be replayed.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for its end.")] = True,
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Take data: start an acquisition, show how it goes, and where every packet went. Ctrl-C stops it in order."""
    with connect(site, control=True) as client:
        try:
            facts = _facts(meta)
            packets: RawMode | None = raw.value if raw is not None else None
            run = client.acquire(name, frames, writer=writer, directory=directory, meta=facts, raw=packets, wait=False)
        except AcquisitionRefused as refusal:
            typer.echo(_refusal(refusal), err=True)
            raise typer.Exit(1) from None
        for warning in run.status().get("warnings") or ():
            typer.echo(f"warning: {warning}", err=True)
        if not wait:
            print_json(run.status()) if as_json else typer.echo(f"{name} has begun")
            return
        try:
            run.wait(progress=False if as_json else None, stalled_after=30.0 if frames else float("inf"))
        except KeyboardInterrupt:
            typer.echo("stopping …", err=True)
            run.stop()
        _show_run(run, as_json)


def ledger(
    name: Annotated[str | None, typer.Argument(help="Of an acquisition. Default: the newest.")] = None,
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Show where every packet and every frame of an acquisition went."""
    with connect(site) as client:
        found = client.ledger(name)
    _show_ledger(found, as_json)


def _refusal(refusal: AcquisitionRefused) -> str:
    """Return why nothing was started, a line each reason."""
    if refusal.reasons == [refusal.message]:
        return f"{refusal}\nnothing was started."
    return "\n  - ".join([f"{refusal.message}:", *refusal.reasons]) + "\nnothing was started."


def _show_run(run: Run, as_json: bool) -> None:
    status, found = run.status(), run.ledger
    if as_json:
        print_json({**status, "ledger": found.to_dict(), "balance": found.balance(), "summary": found.summary()})
    else:
        for path in run.files:
            typer.echo(path)
        if status.get("message"):
            typer.echo(str(status["message"]))
        typer.echo(f"{run.name}: {found.summary()}")
    if found.balance():
        raise typer.Exit(1)


def _show_ledger(found: Ledger, as_json: bool) -> None:
    problems = found.balance()
    if as_json:
        print_json({**found.to_dict(), "balance": problems, "summary": found.summary()})
    else:
        typer.echo(found.acquisition)
        for line in found.summary().split("; "):
            typer.echo(f"  {line}")
    if problems:
        raise typer.Exit(1)


def _follow(client: Client, name: str, log: bool | None, room: dict[str, Any]) -> None:
    from rich.live import Live
    from rich.text import Text

    with client.watch(name, "latest") as samples, Live(auto_refresh=False, screen=sys.stdout.isatty()) as live:
        for sample in samples:
            drawn = _drawn_array(name, sample.value, sample.axis, sample.t, sample.units, log, room)
            live.update(Text(drawn), refresh=True)


def _drawn_series(one: FieldData, log: bool | None, room: dict[str, Any]) -> str:
    if not len(one):
        raise ConfigurationError(f"{one.name} has no samples in that span", remedy="--last 1d looks further back")
    if one.values.dtype.kind == "O":
        raise ConfigurationError(f"{one.name} is text; `sisockdaq get {one.name}` prints it")
    title = f"{one.name} [{one.units or '-'}]  {clock(one.t[0])} … {clock(one.t[-1])}"
    lines = drawing.curve(one.t - one.t[-1], one.values, log=bool(log), label="seconds before the newest", **room)
    return "\n".join([title, *lines])


def _drawn_array(
    name: str, values: Any, axis: Any, t: float, units: str | None, log: bool | None, room: dict[str, Any]
) -> str:
    array = np.asarray(values)
    log = drawing.spans_decades(array) if log is None else log
    title = f"{name} [{units or '-'}]  {clock(t)}{'  logarithmic' if log else ''}"
    if array.ndim == 1:
        x = np.arange(len(array)) if axis is None or len(axis) != len(array) else axis
        return "\n".join([title, *drawing.curve(x, array, log=log, **room)])
    if array.ndim == 2:
        return "\n".join([title, *drawing.image(array, log=log, **room)])
    raise ConfigurationError(f"{name} has {array.ndim} dimensions; one or two can be drawn")


def _span(last: str | None, start: str | None, end: str | None) -> tuple[float, float]:
    if last is not None and start is not None:
        raise ConfigurationError("--last and --start are two ways to say the same; give one")
    until = moment(end) if end else 0.0
    if start is not None:
        return moment(start), until
    if last == "all":
        return 1.0, until
    back = seconds(last) if last else 3600.0
    return (-back if until == 0 else until - back), until


def _facts(meta: list[str] | None) -> dict[str, str] | None:
    facts = {}
    for item in meta or []:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise ConfigurationError(f'"{item}" is not a fact', remedy="write it as sample=LaB6")
        facts[key] = value
    return facts or None


def _brief(value: Any) -> str:
    if np.ndim(value):
        array = np.asarray(value)
        shape = " × ".join(map(str, array.shape))
        return f"{shape}: {np.nanmin(array):.6g} … {np.nanmax(array):.6g}"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _age(uptime: float | None) -> str:
    if uptime is None:
        return "-"
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if uptime >= 2 * length:
            return f"{uptime / length:.0f} {unit}"
    return f"{uptime:.0f} s"


def _table(titles: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        # As text: a unit in brackets is no markup.
        table.add_row(*(Text(cell) for cell in row))
    # A pipe has no width; a line of the table is then one line of text.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)

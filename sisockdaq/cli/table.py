"""The live table of a site: what each part does, how fast, what was lost.

The supervisor knows which processes live; what they do is asked of the nodes themselves, like any client would: the
latest samples of their timelines `_TOLD`, and the writer's status call. A node that does not answer costs its row's
figures, nothing else. Without a terminal each change is one line.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sisockdaq.errors import SisockdaqError
from sisockdaq.router import rights_warning
from sisockdaq.site import Site
from sisockdaq.supervisor import PartStatus, Supervisor

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sisockdaq.client import Client

__all__ = ["Cells", "Style", "cells", "chosen_style", "show_site"]

PERIOD = 1.0
"""Time between two looks at the nodes [s]."""

_STALE = 5.0
"""A sample older than this [s] is not shown: the node has stopped telling."""

_TOLD = ("status", "recording")
"""Timelines on which nodes say how they are."""

_WIDE = 110
"""Columns of a terminal from which on the table shows the types too; a standard one has 80."""

Style = Literal["table", "lines", "json"]

Cells = tuple[str, str, str]
"""Rate, losses, detail of one row."""


def show_site(
    site: Site,
    supervisor: Supervisor,
    stop: threading.Event,
    *,
    style: Style,
    on_ready: Callable[[], None] = lambda: None,
    commands: Sequence[str] = (),
) -> None:
    """Show what the site does until `stop` is set.

    Parameters
    ----------
    style : {"table", "lines", "json"}
        Draw a table in the terminal, or print one line of text or JSON for each change.
    on_ready : callable
        Called once when all parts are up.
    commands : sequence of str
        Commands worth trying, shown below the table.
    """
    if style != "table":
        _show_lines(site, supervisor, stop, on_ready, as_json=style == "json")
        return
    facts = Facts(site, stop)
    facts.start()
    try:
        _show_table(site, supervisor, stop, facts, on_ready, commands)
    finally:
        facts.stop()


def chosen_style(*, plain: bool, as_json: bool) -> Style:
    """Return how to show a site: as asked for, else by whether this is a terminal."""
    if as_json:
        return "json"
    return "table" if sys.stdout.isatty() and not plain else "lines"


class Facts:
    """What the nodes say of themselves, asked for again and again in a thread.

    Attributes
    ----------
    latest : dict
        Per node that answers, field → latest value.
    """

    def __init__(self, site: Site, stop: threading.Event) -> None:
        self._site = site
        self._stopped = stop
        self._thread = threading.Thread(target=self._run, name="facts", daemon=True)
        self.latest: dict[str, dict[str, Any]] = {}

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """End; the site may go down afterwards."""
        self._stopped.set()
        self._thread.join(PERIOD + 5.0)

    def _run(self) -> None:
        from sisockdaq.client import Client

        while not self._stopped.is_set():
            try:
                with Client(self._site.site, control=True) as client:
                    while not self._stopped.wait(PERIOD):
                        told = {name: self._ask(client, name) for name in self._site.nodes}
                        self.latest = {name: values for name, values in told.items() if values is not None}
            except SisockdaqError:
                self.latest = {}  # the router is not there (yet, or again); the supervisor's rows say so
                self._stopped.wait(PERIOD)

    def _ask(self, client: Client, name: str) -> dict[str, Any] | None:
        """Return what a node says; None where it does not answer."""
        values: dict[str, Any] = {}
        try:
            fields = client.fields(name)
            wanted = [f"{name}::{row.name}" for row in fields if row.timeline in _TOLD and row.type != "array"]
            data = client.get(*wanted, start=-_STALE) if wanted else {}
            values = {full.partition("::")[2]: one.values[-1] for full, one in data.items() if len(one)}
        except SisockdaqError:
            return None
        if self._site.nodes[name].type == "file_writer" and "acquisition" in fields.names:  # others only record series
            with contextlib.suppress(SisockdaqError):
                values |= client.call_control(name, "status")
        return values


def cells(kind: str, values: Mapping[str, Any], site: Site) -> Cells:
    """Return rate, losses and detail of a node's row from what the node says of itself."""
    match kind:
        case "detector_receiver":
            return _receiver(values, site)
        case "integrator":
            return _number(values, "frame_rate", "curves/s"), _whole(values, "frames_dropped"), _bins(site)
        case "file_writer":
            return _writer(values) if values.get("acquisition") else _recorder(values)
        case "hdf5_archive":
            return "", "", _archive(values)
        case "ocs_feed":
            return (
                _number(values, "ocs_feed.sample_rate", "samples/s"),
                _whole(values, "ocs_feed.dropped"),
                _feeds(values),
            )
    return "", "", ""


def _receiver(values: Mapping[str, Any], site: Site) -> Cells:
    detail = site.detector.title if site.detector else ""
    if "ring_use" in values:
        detail += f", ring {float(values['ring_use']):.0f} %"
    return _number(values, "frame_rate", "frames/s"), _whole(values, "packets_lost_total"), detail


def _bins(site: Site) -> str:
    for entry in site.nodes.values():
        if entry.type == "integrator":
            bins, unit = entry.options.get("bins", 1000), entry.options.get("unit", "q_nm^-1")
            return f"{bins} bins in {unit}"
    return ""


def _writer(values: Mapping[str, Any]) -> Cells:
    written, wanted = values.get("frames_written", 0), values.get("frames")
    detail = f"{values['acquisition']}: {written}" + (f" of {wanted}" if wanted else "")
    if values.get("state") == "WRITING":
        left = values.get("time_left")
        detail += f", {left:.0f} s left" if left is not None else ""
        detail += f", {values.get('bytes_written', 0) / 1e6:.0f} MB"
        return _number(values, "rate", "frames/s"), _whole(values, "frames_discarded"), detail
    files = values.get("files") or []
    last = f", {Path(_file_name(files[-1])).name}" if files else ""
    return "", _whole(values, "frames_discarded"), f"{detail}{last}"


def _recorder(values: Mapping[str, Any]) -> Cells:
    """Say how a writer that takes no images records series, where it does."""
    samples, fields = _whole(values, "samples_recorded"), _whole(values, "recording_fields")
    detail = values.get("recording_problem") or (f"{samples} samples of {fields} fields" if samples else "")
    return "", _whole(values, "samples_lost"), str(detail)


def _file_name(entry: Any) -> str:
    return str(entry.get("path", entry.get("file", ""))) if isinstance(entry, Mapping) else str(entry)


def _archive(values: Mapping[str, Any]) -> str:
    counts = [(key, int(values[f"files_{key}"])) for key in ("whole", "growing", "broken") if f"files_{key}" in values]
    return ", ".join(f"{count} {key}" for key, count in counts if count or key == "whole")


def _feeds(values: Mapping[str, Any]) -> str:
    feeds, fields = (_whole(values, f"ocs_feed.{what}") for what in ("feeds", "fields"))
    return f"{fields} fields of {feeds} feeds" if feeds else ""


def _number(values: Mapping[str, Any], key: str, unit: str) -> str:
    return f"{float(values[key]):.0f} {unit}" if values.get(key) is not None else ""


def _whole(values: Mapping[str, Any], key: str) -> str:
    return f"{int(values[key])}" if values.get(key) is not None else ""


# --- drawing -------------------------------------------------------------------------------------------------------


def _show_table(
    site: Site,
    supervisor: Supervisor,
    stop: threading.Event,
    facts: Facts,
    on_ready: Callable[[], None],
    commands: Sequence[str],
) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    console.print(_head(site), highlight=False)
    told = False
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            statuses = supervisor.status()
            if not told and all(part.state == "up" for part in statuses):
                told = True
                on_ready()
            live.update(_table(site, statuses, facts.latest, commands, console.width), refresh=True)
            if stop.wait(PERIOD / 2):
                break
    console.print("\n  stopping …", highlight=False)


def _head(site: Site) -> str:
    warning = rights_warning(site.router.ocs)
    below = f"  warning: {warning}\n" if warning else ""
    return f"  site {site.site} · realm {site.realm} · state in {_short(site.state.path)}\n{below}"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _table(
    site: Site,
    statuses: Sequence[PartStatus],
    latest: Mapping[str, Mapping[str, Any]],
    commands: Sequence[str],
    width: int,
) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    wide = width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for title in ("  part", *(["type"] if wide else []), "state", "rate", "lost"):
        table.add_column(title, no_wrap=True)
    table.add_column("detail", no_wrap=True, overflow="ellipsis", ratio=1)  # it alone gives way in a narrow terminal
    for part in statuses:
        table.add_row(f"  {part.name}", *([part.kind] if wide else []), *row(site, part, latest))
    places = [site.url.replace("wss://", "https://").removesuffix("ws"), *commands]
    below = [Text(f"  {'look' if number == 0 else '    '}    {text}") for number, text in enumerate(places)]
    return Group(table, Text(""), *below, Text("  stop    Ctrl-C"))


def row(site: Site, part: PartStatus, latest: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, str, str]:
    """Return state, rate, losses and detail of one part."""
    again = f" ({part.restarts} restarts)" if part.restarts else ""
    if part.state != "up":
        return part.state + again, "", "", part.message
    values = latest.get(part.name, {})
    state = "writing" if values.get("state") == "WRITING" else "up"
    if part.name == "router":
        ocs = site.router.ocs
        warning = f"; full rights without a login at port {ocs.port}" if ocs and ocs.full_rights else ""
        return state + again, "", "", site.url + warning
    if part.name == "hub":
        return state + again, "", "", f"{len(latest)} {'node answers' if len(latest) == 1 else 'nodes answer'}"
    rate, lost, detail = cells(part.kind, values, site)
    return state + again, rate, lost, detail or part.message


def _show_lines(
    site: Site, supervisor: Supervisor, stop: threading.Event, on_ready: Callable[[], None], *, as_json: bool
) -> None:
    """Print a line for each change of a part, and one when all are up."""

    def say(text: str, **facts: Any) -> None:
        sys.stdout.write(f"{json.dumps(facts)}\n" if as_json else f"{text}\n")
        sys.stdout.flush()

    say(_head(site), site=site.site, url=site.url, state=str(site.state.path), warning=rights_warning(site.router.ocs))
    shown: dict[str, tuple[str, int | None]] = {}
    ready = False
    began = time.monotonic()
    while True:
        statuses = supervisor.status()
        for part in statuses:
            if shown.get(part.name) != (part.state, part.pid):
                shown[part.name] = (part.state, part.pid)
                text = f"  {part.name}: {part.state}{f' — {part.message}' if part.message else ''}"
                say(text, part=part.name, state=part.state, pid=part.pid, message=part.message)
        if not ready and all(part.state == "up" for part in statuses):
            ready = True
            took = time.monotonic() - began
            say(f"  ready after {took:.1f} s; stop with Ctrl-C or SIGTERM", ready=round(took, 1))
            on_ready()
        if stop.wait(0.2):
            return

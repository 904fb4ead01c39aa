"""``sisockdaq doctor``: what a writer would look at before an acquisition, for a whole site, without starting anything.

Each finding either refuses (an acquisition, or the start of the site) or only warns, as the site's ``checks`` say.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sisockdaq.cli._options import AsJson, Set
from sisockdaq.errors import ConfigurationError, SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.site import Site

__all__ = ["Diagnosis", "add_commands", "examine"]

_LITTLE_SPACE = 2**30
"""Free space below which a writer's folder is worth a word [bytes]."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding: the part of the site, what was looked at, "refuse" or "warn", the reason with its remedy."""

    part: str
    check: str
    severity: str
    text: str


def add_commands(app: typer.Typer) -> None:
    """Add ``doctor``."""
    app.command()(doctor)


def doctor(
    where: Annotated[Path, typer.Argument(help="The site file, or its folder.", metavar="SITE")] = Path("site.yml"),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Look for what would stand in the way of a site and its acquisitions; nothing is started.

    Exit status 0: nothing refuses; 1: something does.
    """
    from sisockdaq.site import load_site

    try:
        site = load_site(where, check=None, overrides=settings or [])
        name, found = site.site, examine(site)
    except ConfigurationError as error:
        name, found = str(where), [Diagnosis("site", "file", "refuse", problem) for problem in error.problems]
    refuses = any(each.severity == "refuse" for each in found)
    if as_json:
        typer.echo(
            json.dumps({"site": name, "ok": not refuses, "findings": [asdict(each) for each in found]}, indent=2)
        )
    else:
        for each in found:
            typer.echo(f"{each.severity:<7} {each.part:<12} {each.text}")
        typer.echo(
            f"{name}: {'not ready' if refuses else 'ready'}, {len(found) or 'no'} finding{'s'[: len(found) != 1]}"
        )
    if refuses:
        raise typer.Exit(1)


def examine(site: Site) -> list[Diagnosis]:
    """Return everything that is found about a site, in the order of its file."""
    chosen = _chosen(site)
    found = [
        Diagnosis("detector", name, severity, text)
        for name, text in _detector(site)
        if (severity := chosen[name]) != "off"
    ]
    if not any(each.check == "geometry" for each in found):
        found += _implausible(site, chosen["geometry"])
    running = _is_running(site)
    for name in site.nodes:
        options = site.options(name)
        if site.nodes[name].type == "file_writer":
            found += [each for each in _writer(site, name, options) if each.severity != "off"]
        elif site.nodes[name].type == "detector_receiver":
            found += [each for each in _receiver(name, options, chosen, running=running) if each.severity != "off"]
    return found


def _chosen(site: Site) -> dict[str, str]:
    """Return what becomes of findings, as the writers say: the strictest where they differ."""
    from sisockdaq.nexus.checks import CHECKS

    strictness = ["off", "warn", "refuse"]
    said = [getattr(site.options(name), "checks", {}) for name in site.nodes if site.nodes[name].type == "file_writer"]
    return {
        name: max([checks.get(name, default) for checks in said] or [default], key=strictness.index)
        for name, default in CHECKS.items()
    }


def _detector(site: Site) -> Iterator[tuple[str, str]]:
    """Try mask and geometry on the detector that the site describes."""
    from sisockdaq.nexus.facts import geometry_facts, site_mask

    for name, look in (("mask", site_mask), ("geometry", geometry_facts)):
        try:
            look(site)
        except SisockdaqError as error:
            yield name, str(error)


def _implausible(site: Site, severity: str) -> Iterator[Diagnosis]:
    """Say what about a usable geometry can hardly be meant; what is only odd warns, whatever the site's checks say."""
    detector = site.detector
    if detector is None or detector.geometry is None or severity == "off":
        return
    from sisockdaq.calibration import Geometry, check_geometry, check_pixels
    from sisockdaq.calibration.readers import is_other_kind, read_with_pixels
    from sisockdaq.detector.description import Geometry as Inline
    from sisockdaq.integrate import load_geometry

    given = detector.geometry
    place = given.model_dump() if isinstance(given, Inline) else site.resolve_input(given)
    geometry = Geometry.of_pyfai(load_geometry(place, shape=detector.shape, pixel_size=detector.pixel_size))
    for finding in (*check_geometry(geometry), *check_pixels(geometry, detector.pixel_size)):
        text = f"{finding.about}: {finding.reason}   → {finding.remedy}"
        yield Diagnosis("detector", "geometry", severity if finding.severity == "error" else "warn", text)
    if isinstance(place, Path) and is_other_kind(place):
        read = read_with_pixels(place, detector.pixel_size)
        yield from (Diagnosis("detector", "geometry", "warn", f"{place.name} ({read.kind}): {n}") for n in read.notes)


def _writer(site: Site, name: str, options: Any) -> Iterator[Diagnosis]:
    from sisockdaq.nexus.checks import CHECKS, existing_folder, shown_size
    from sisockdaq.nexus.identity import may_write, user_obstacle

    user = options.writer_user_id
    obstacle = user_obstacle(user)
    if obstacle:
        yield Diagnosis(name, "user", "refuse", obstacle)
    for place in (options.directory, *options.allowed):
        folder = existing_folder(site.resolve_output(place))
        if not folder.is_dir():
            yield Diagnosis(name, "folder", "refuse", f"{folder} is not a folder   → use another directory")
        elif not may_write(folder, None if obstacle else user):
            text = f"{folder} is not writable   → change its owner or mode, or use another directory"
            yield Diagnosis(name, "folder", "refuse", text)
        free = shutil.disk_usage(folder).free
        if free < _LITTLE_SPACE:
            severity = {**CHECKS, **options.checks}["space"]
            yield Diagnosis(name, "space", severity, f"{shown_size(free)} free in {folder}   → free some")


def _receiver(name: str, options: Any, chosen: Mapping[str, str], *, running: bool) -> Iterator[Diagnosis]:
    from sisockdaq.detector.sockets import buffer_warning, open_sockets

    with open_sockets([("127.0.0.1", 0)], options.receive_buffer)[0] as trial:
        warning = buffer_warning([trial], options.receive_buffer)
    if warning:
        yield Diagnosis(name, "buffers", chosen["buffers"], warning)
    for entry in () if running else options.udp:  # a site that runs has its own ports
        try:
            opened: list[socket.socket] = open_sockets([(entry.address, entry.port)], 2**16)
        except SisockdaqError as error:
            yield Diagnosis(name, "ports", "refuse", str(error))
        else:
            opened[0].close()


def _is_running(site: Site) -> bool:
    """Whether the site's lock is held; nothing is made where the site never ran."""
    import fcntl

    try:
        with (site.state.path / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False

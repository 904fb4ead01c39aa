"""``sisockdaq integrate``: recorded acquisitions through the integrator again, with another calibration or mask."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sisockdaq.cli._integration import (
    cake_bins,
    checked,
    frame_slice,
    of_site,
    pair,
    put,
    recorded_factors,
    settle_cake,
)
from sisockdaq.cli._options import AsJson
from sisockdaq.cli._reading import print_json
from sisockdaq.cli.up import until_signal
from sisockdaq.errors import ConfigurationError, GeometryError, SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.integrate.reduction import Reduced, Reducer
    from sisockdaq.reprocessing import Recorded, RecordedFrame

__all__ = ["add_commands"]

_INTERRUPTED = 130
"""Exit status after Ctrl-C, as of any program that it ends."""

_SHOWN = 5
"""Frames that failed and are told one by one."""

_HELP = """\
Integrate recorded acquisitions again, with another calibration, mask or splitting.

\b
    sisockdaq integrate run_0001_master.h5 --geometry new.poni
    sisockdaq integrate run_*_master.h5 --site my-site -g new.poni
    sisockdaq integrate frame_*.cbf -g new.poni --format chi --average
    sisockdaq integrate run_0001_master.h5 -g new.poni --cake 360x200

FILES are masters of NXmx (ours or others'), data files, or images as TIFF, CBF and EDF; images whose names differ in \
their number only are one acquisition. The numbers are those that the live integrator gives with the same settings. \
Pixels of lost packets and the file's own pixel mask are left out; frames that are not there are told, and keep their \
place.

Exit status 0: every frame that is there became a curve; 1: some did not; 130: Ctrl-C, the files are whole.
"""

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any other setting, as the integrator's options in a site file: --set method=sigma_clip, --set "
        "sectors.left.azimuth_range=[150,-150]; may be repeated.",
        metavar="KEY=VALUE",
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add ``integrate``."""
    app.command(help=_HELP)(integrate)


@dataclass
class _Task:
    """What is to be done with every acquisition."""

    settings: dict[str, Any]
    resolve: Callable[[str], Path]
    pixel_size: float | None
    folder: Path
    formats: list[str]
    frames: slice
    average: bool
    file_mask: bool
    overwrite: bool
    threads: int
    cache: bool
    node: str | None = None
    last: Reducer | None = None
    last_key: Any = None


def integrate(
    files: Annotated[list[Path], typer.Argument(help="Masters, data files, or images.", metavar="FILES…")],
    geometry: Annotated[
        str | None,
        typer.Option(
            "--geometry",
            "-g",
            help="PONI file, or any that `sisockdaq calibration import` reads. Default: the site's, else what the file "
            "says.",
            metavar="FILE",
        ),
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="Mask: pixels that are not 0 are left out, beside the file's own mask.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Radial axis: q_nm^-1 (default), q_A^-1, 2th_deg, 2th_rad or r_mm.")
    ] = None,
    bins: Annotated[int | None, typer.Option(help="Points of a curve. Default: 1000.")] = None,
    split: Annotated[str | None, typer.Option(help="Pixel splitting: no (default), bbox or full.")] = None,
    radial_range: Annotated[str | None, typer.Option(help="Ends of the axis, in its unit.", metavar="FROM,TO")] = None,
    azimuth_range: Annotated[
        str | None,
        typer.Option(
            help="Azimuth angles in degrees: 0 towards larger columns, 90 towards larger rows.", metavar="FROM,TO"
        ),
    ] = None,
    error_model: Annotated[str | None, typer.Option(help="Errors: poisson (default), azimuthal, or none.")] = None,
    polarization: Annotated[float | None, typer.Option(help="Polarization factor, 1 for horizontal.")] = None,
    no_solid_angle: Annotated[
        bool, typer.Option("--no-solid-angle", help="Do not correct for the solid angle of pixels.")
    ] = False,
    monitor: Annotated[
        str | None,
        typer.Option(
            help="What intensities are divided by: a number, a field of the file as integrator::monitor, or none. With "
            "a site that takes it from a node: what was recorded with the frames.",
            metavar="NUMBER|FIELD",
        ),
    ] = None,
    transmission: Annotated[
        str | None, typer.Option(help="The sample's transmission, as --monitor.", metavar="NUMBER|FIELD")
    ] = None,
    dark: Annotated[str | None, typer.Option(help="Dark image to subtract.")] = None,
    flat: Annotated[str | None, typer.Option(help="Flat field to divide by.")] = None,
    background: Annotated[
        str | None, typer.Option(help="Background to subtract: a curve (.chi, .dat), or an image.")
    ] = None,
    dummy: Annotated[
        float | None, typer.Option(help="Pixels of this value are left out. Default: what the file fills gaps with.")
    ] = None,
    delta_dummy: Annotated[
        float | None, typer.Option(help="So are those that differ by no more than this from it.")
    ] = None,
    cake: Annotated[
        str | None,
        typer.Option(
            help="A cake of each frame beside its curve: azimuthal by radial bins, as 360x200; none for no cake of the "
            "site's.",
            metavar="AxR",
        ),
    ] = None,
    settings: Settings = None,
    site: Annotated[
        str | None,
        typer.Option(
            help="Begin with the settings of this site's integrator; file, folder, or file::NODE.", metavar="PATH"
        ),
    ] = None,
    file_mask: Annotated[
        bool, typer.Option("--file-mask/--no-file-mask", help="Leave out what the file's own pixel mask hides.")
    ] = True,
    frames: Annotated[
        str | None, typer.Option(help="Which frames, from 0: FIRST:LAST (not included), or FIRST:LAST:STEP.")
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="One curve of all frames, as of one long exposure.")
    ] = False,
    to: Annotated[Path, typer.Option(help="Folder for the reduced files.", metavar="DIR")] = Path(),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help="nxazint (default), nxcansas, chi or dat; may be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files of the same names.")] = False,
    threads: Annotated[int, typer.Option(help="Frames at work at once; 0: as many as there are cores.", min=0)] = 0,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep maps on disk, for the next call with the same geometry.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    options = {
        "geometry": geometry,
        "mask": mask,
        "unit": unit,
        "bins": bins,
        "split": split,
        "radial_range": pair("--radial-range", radial_range),
        "azimuth_range": pair("--azimuth-range", azimuth_range),
        "polarization": polarization,
        "dark": dark,
        "flat": flat,
        "background": background,
        "dummy": dummy,
        "delta_dummy": delta_dummy,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if no_solid_angle:
        given["solid_angle"] = False
    for name, text in (("monitor", monitor), ("transmission", transmission)):
        if text is not None:
            given[name] = None if text in ("none", "null") else text
    if error_model is not None:
        given["error_model"] = None if error_model in ("none", "null") else error_model
    if cake is not None:
        given["cake"] = cake_bins(cake)
    chosen = list(dict.fromkeys(formats or ["nxazint"]))
    where = None if site is None else of_site(site)
    known: dict[str, Any] = {} if where is None else where.settings
    put(known, given, settings or [])
    settle_cake(known, given, chosen)
    task = _Task(
        known,
        Path if where is None else where.resolve,
        None if where is None else where.pixel_size,
        to,
        chosen,
        frame_slice(frames),
        average,
        file_mask,
        overwrite,
        threads or len(os.sched_getaffinity(0)),
        cache,
        None if where is None else where.node,
    )
    raise typer.Exit(_run(task, files, as_json))


def _run(task: _Task, paths: list[Path], as_json: bool) -> int:
    """Integrate everything; return the exit status."""
    from sisockdaq.reprocessing import open_recorded

    opening = list(open_recorded(paths))
    _look_ahead(task, opening)
    told: list[dict[str, Any]] = []
    with until_signal() as stop:
        for one in opening:
            with one() as recorded:
                told.append(_acquisition(task, recorded, stop.is_set, quiet=as_json))
            if told[-1]["interrupted"]:
                break
    if as_json:
        print_json({"acquisitions": told, "interrupted": told[-1]["interrupted"]})
    if told[-1]["interrupted"]:
        return _INTERRUPTED
    return 1 if any(each["failures"] or each["not_normalized"] for each in told) else 0


def _look_ahead(task: _Task, opening: Sequence[Callable[[], Recorded]]) -> None:
    """Say of all files what stands in the way, before anything is integrated."""
    from sisockdaq.integrate.saving import ReducedFiles

    problems: list[SisockdaqError] = []
    names: dict[str, Path] = {}
    for one in opening:
        try:
            with one() as recorded:
                other = names.setdefault(recorded.name, recorded.path)
                if other != recorded.path:
                    raise ConfigurationError(
                        f"{recorded.path} and {other} would have the same reduced files",
                        remedy="integrate them one by one, each with its own --to",
                    )
                if not len(recorded.wanted(task.frames)):
                    raise ConfigurationError(
                        f"{recorded.path}: has no such frames", remedy=f"it has {_span(recorded)}; see --frames"
                    )
                ReducedFiles(task.folder, recorded.name, task.formats, overwrite=task.overwrite).check()
        except SisockdaqError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [str(error) for error in problems]
        raise ConfigurationError("\n".join(lines), problems=lines)


def _span(recorded: Recorded) -> str:
    return f"{len(recorded.present)} of {recorded.total} frames" if recorded.total else "no frames"


def _acquisition(task: _Task, recorded: Recorded, stop: Callable[[], bool], *, quiet: bool) -> dict[str, Any]:
    """Integrate one acquisition, and tell how it went."""
    from sisockdaq.integrate.saving import ReducedFiles, describe_reduction
    from sisockdaq.reprocessing import ranges, reprocess
    from sisockdaq.reprocessing.averaging import FrameAverage

    indices, missing = recorded.wanted(task.frames), recorded.missing(task.frames)
    reducer = _reducer(task, recorded, quiet=quiet)
    factors = recorded_factors(reducer.settings, recorded, task.node)
    parameters = {"frames_missing": ranges(missing) or None, "frames_averaged": task.average or None}
    about = describe_reduction(
        reducer, acquisition=recorded.name, files=recorded.files, parameters=parameters, **recorded.about
    )
    average = FrameAverage(reducer)
    first: list[RecordedFrame] = []
    with ReducedFiles(task.folder, recorded.name, task.formats, overwrite=task.overwrite) as saved:
        saved.begin(reducer, about)

        def keep(frame: RecordedFrame, reduced: Reduced) -> None:
            if task.average:
                average.add(reduced)
                first[:] = first or ([frame] if average.frames else [])
            else:
                saved.add(frame.index, frame.time, reduced, number=frame.number)

        with _bar(recorded.name, len(indices), quiet) as show:
            outcome = reprocess(
                recorded, reducer, indices, keep, factors=factors, threads=task.threads, stop=stop, progress=show
            )
        if average.frames:
            saved.add(first[0].index, first[0].time, average.result(), number=first[0].number)
    told = {
        "acquisition": recorded.name,
        "source": str(recorded.path),
        "frames": outcome.frames,
        "wanted": len(indices),
        "missing": ranges(missing),
        "failures": outcome.failures,
        "not_normalized": outcome.not_normalized,
        "failed": {str(index): reason for index, reason in outcome.failed.items()},
        "interrupted": outcome.interrupted,
        "files": [str(path) for path in saved.files],
        "text_files": saved.texts,
        "note": recorded.note,
        "seconds": outcome.seconds,
        "frames_per_second": outcome.rate,
    }
    if not quiet:
        _tell(told, task)
    return told


def _tell(told: dict[str, Any], task: _Task) -> None:
    where = [*told["files"]]
    if told["text_files"]:
        where.append(f"{told['text_files']} text files in {task.folder}")
    typer.echo(
        f"{told['acquisition']}: {_count(told['frames'], 'frame')}{', averaged,' if task.average else ''} "
        f"in {told['seconds']:.1f} s ({told['frames_per_second']:.0f} frames/s) → {', '.join(where)}"
    )
    if told["interrupted"]:
        typer.echo(
            f"  stopped: {told['frames']} of {told['wanted']} frames are in the files, which are whole", err=True
        )
    if told["note"]:
        typer.echo(f"  {told['source']} {told['note']}", err=True)
    if told["missing"]:
        typer.echo(f"  not in the files of the acquisition: {told['missing']}", err=True)
    if told["not_normalized"]:
        frames = _count(told["not_normalized"], "frame") + (" left out" if task.average else " without intensities")
        typer.echo(f"  {frames}: monitor or transmission missing, or not above 0", err=True)
    for index, reason in list(told["failed"].items())[:_SHOWN]:
        typer.echo(f"  frame {index} is left out: {reason}", err=True)
    if told["failures"] > _SHOWN:
        typer.echo(f"  … {told['failures']} frames in all are left out (--json names them)", err=True)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _reducer(task: _Task, recorded: Recorded, *, quiet: bool) -> Reducer:
    """Return the reducer for an acquisition: the last one, where it is for the same images."""
    from sisockdaq.integrate.reduction import Reducer
    from sisockdaq.integrate.settings import make_integrator

    known = dict(task.settings)
    pixel_size: float | tuple[float, float] | None = task.pixel_size
    if known.get("geometry") is None:
        known["geometry"], pixel_size = _own_geometry(recorded, quiet=quiet)
    hidden = recorded.mask if task.file_mask else None
    mask = None if hidden is None else hidden.tobytes()
    known["threads"] = 1  # frames are shared by threads here, not parts of them
    key = (recorded.shape, repr(known["geometry"]), mask)
    if key != task.last_key or task.last is None:
        settings = checked(known)
        integrator = make_integrator(
            settings,
            resolve=task.resolve,
            shape=recorded.shape,
            pixel_size=pixel_size,
            hidden=hidden,
            cache=task.cache,
        )
        task.last_key, task.last = key, Reducer(integrator, settings, epoch=1)
    task.last.follow_fill(recorded.fill_value)
    task.last.warm_up(recorded.dtype)  # what is compiled now does not count as slow frames
    return task.last


def _own_geometry(recorded: Recorded, *, quiet: bool) -> tuple[dict[str, float], tuple[float, float]]:
    """Return the geometry that a file says itself, and the size of its pixels."""
    from sisockdaq.calibration import read_geometry

    try:
        found = read_geometry(recorded.path)
    except GeometryError as error:
        raise GeometryError(
            f"there is no geometry: {error.message}", remedy="give a PONI (or Fit2D, …) with --geometry, or --site"
        ) from None
    names = ("distance", "poni1", "poni2", "rot1", "rot2", "rot3", "wavelength")
    values = {name: getattr(found, name) for name in names}
    if not quiet:
        typer.echo(f"geometry as {recorded.path.name} says it; a tilt is often not in such a file", err=True)
    return {name: float(value) for name, value in values.items() if value is not None}, found.pixel_size


@contextlib.contextmanager
def _bar(name: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Frames a second, of the last ones."""

        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.0f} frames/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)

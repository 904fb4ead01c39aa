"""``sisockdaq calibration``: read, check and convert what says where a detector stands; draw rings over an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sisockdaq.cli._options import AsJson
from sisockdaq.cli._reading import print_json
from sisockdaq.errors import ConfigurationError, GeometryError

if TYPE_CHECKING:
    from sisockdaq.calibration import Finding, Geometry, Hints, RingReport

__all__ = ["add_commands"]

_KINDS = "A PONI file, Fit2D's parameters, a SAXSdog calibration, an NXmx master, a Stream V2 start message, or a CBF."

Source = Annotated[Path, typer.Argument(help=_KINDS, metavar="FILE")]
Detector = Annotated[
    str, typer.Option(help="Name of a detector that pyFAI knows; gives pixel size and shape.", metavar="NAME")
]
PixelSize = Annotated[
    str | None, typer.Option(help="Size of a pixel in µm: one number, or height,width.", metavar="NUMBERS")
]
Shape = Annotated[str | None, typer.Option(help="Rows and columns of the images, as 1043x981.", metavar="ROWSxCOLUMNS")]
Wavelength = Annotated[float | None, typer.Option(help="Wavelength in Å.", min=1e-6)]
Energy = Annotated[float | None, typer.Option(help="Photon energy in keV.", min=1e-6)]
FromBottom = Annotated[bool, typer.Option("--from-bottom", help="Fit2D's y counts from the last row of the image.")]
ImageFile = Annotated[str | None, typer.Option("--image", help="An image; in HDF5 FILE::dataset.", metavar="FILE")]
MaskFile = Annotated[
    str | None, typer.Option("--mask", help="Mask: pixels that are not 0 are left out.", metavar="FILE")
]
Frame = Annotated[int, typer.Option(help="Which image of several, from 0.", min=0)]


def add_commands(app: typer.Typer) -> None:
    """Add ``calibration`` with its sub-commands."""
    group = typer.Typer(
        name="calibration", help="Where the detector stands: import, show, check, and draw rings.", no_args_is_help=True
    )
    group.command("import")(import_)
    group.command()(show)
    group.command()(check)
    group.command()(rings)
    app.add_typer(group)


def import_(
    file: Source,
    to: Annotated[Path | None, typer.Option(help="PONI file to write. Default: print it.", metavar="FILE.poni")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a PONI file that is there.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Write it even if it cannot be right.")] = False,
    detector: Detector = "",
    pixel_size: PixelSize = None,
    shape: Shape = None,
    wavelength: Wavelength = None,
    energy: Energy = None,
    from_bottom: FromBottom = False,
) -> None:
    """Make a PONI file of any file that says where a detector stands."""
    from sisockdaq.calibration import check_geometry, read_geometry

    geometry = read_geometry(file, _hints(detector, pixel_size, shape, wavelength, energy, from_bottom))
    findings = check_geometry(geometry)
    for note in geometry.notes:
        typer.echo(f"note: {note}", err=True)
    _print_findings(findings, err=True)
    if _failed(findings) and not anyway:
        raise GeometryError(f"{file}: cannot be right, and was not taken", remedy="correct it, or --anyway")
    if to is None:
        typer.echo(geometry.poni_text(), nl=False)
    else:
        geometry.save(to, replace_file=replace)
        typer.echo(f"{to}: {geometry.kind or 'geometry'} of {file}")


def show(
    file: Source,
    detector: Detector = "",
    pixel_size: PixelSize = None,
    shape: Shape = None,
    wavelength: Wavelength = None,
    energy: Energy = None,
    from_bottom: FromBottom = False,
    as_json: AsJson = False,
) -> None:
    """Show where the detector stands, in pyFAI's and in Fit2D's terms."""
    from sisockdaq.calibration import read_geometry

    geometry = read_geometry(file, _hints(detector, pixel_size, shape, wavelength, energy, from_bottom))
    print_json(_described(geometry)) if as_json else _print_geometry(geometry)


def check(
    file: Source,
    image: ImageFile = None,
    mask: MaskFile = None,
    calibrant: Annotated[
        str | None, typer.Option(help="Look for this calibrant's rings in the image (AgBh, LaB6, …).", metavar="NAME")
    ] = None,
    frame: Frame = 0,
    detector: Detector = "",
    pixel_size: PixelSize = None,
    shape: Shape = None,
    wavelength: Wavelength = None,
    energy: Energy = None,
    from_bottom: FromBottom = False,
    as_json: AsJson = False,
) -> None:
    """Say what is implausible about a calibration, and whether image and mask belong to it.

    Exit status 0: nothing is wrong (there may be warnings); 1: something is.
    """
    from sisockdaq.calibration import check_geometry, find_rings, read_geometry

    if calibrant is not None and image is None:
        raise ConfigurationError("a calibrant is looked for in an image", remedy="give --image")
    geometry = read_geometry(file, _hints(detector, pixel_size, shape, wavelength, energy, from_bottom))
    findings, report = check_geometry(geometry), None
    pixels, bad, more = _image_and_mask(geometry, image, mask, frame)
    findings += more
    if pixels is not None and calibrant is not None and not any(each.about in ("image", "mask") for each in more):
        if _failed(findings):
            typer.echo("rings are not looked for before the geometry is right", err=True)
        else:
            report = find_rings(geometry, pixels, calibrant, bad)
            findings += report.findings
    if as_json:
        print_json(
            {
                "file": str(file),
                "ok": not _failed(findings),
                "findings": [_finding(each) for each in findings],
                "notes": list(geometry.notes),
                "rings": None if report is None else _report(report),
            }
        )
    else:
        for note in geometry.notes:
            typer.echo(f"note     {note}")
        _print_findings(findings)
        if report is not None:
            typer.echo(f"{report.count('found')} of {len(report.rings)} rings of {report.calibrant} found")
        typer.echo(f"{file}: {'cannot be right' if _failed(findings) else 'plausible'}, {_count(findings)}")
    if _failed(findings):
        raise typer.Exit(1)


def rings(
    file: Source,
    calibrant: Annotated[str, typer.Option(help="Calibrant of pyFAI (AgBh, LaB6, …), or a file of d-spacings.")],
    to: Annotated[Path, typer.Option(help="PNG to write.", metavar="FILE.png")] = Path("rings.png"),
    image: ImageFile = None,
    mask: MaskFile = None,
    frame: Frame = 0,
    detector: Detector = "",
    pixel_size: PixelSize = None,
    shape: Shape = None,
    wavelength: Wavelength = None,
    energy: Energy = None,
    from_bottom: FromBottom = False,
    as_json: AsJson = False,
) -> None:
    """Draw an image with the rings of a calibrant where the geometry puts them, and list what was found of them.

    The image may be left out where FILE has one (CBF, NXmx).
    """
    from sisockdaq.calibration import find_rings, read_geometry
    from sisockdaq.calibration.overlay import save_overlay

    geometry = read_geometry(file, _hints(detector, pixel_size, shape, wavelength, energy, from_bottom))
    if image is None and geometry.kind not in ("CBF header", "NXmx file"):
        raise ConfigurationError(f"{file} has no image", remedy="give --image")
    pixels, bad, more = _image_and_mask(geometry, image or str(file), mask, frame)
    _print_findings(more, err=True)
    assert pixels is not None
    report = find_rings(geometry, pixels, calibrant, bad)
    save_overlay(to, geometry, pixels, calibrant, bad, report.rings)
    if as_json:
        print_json({"file": str(file), "picture": str(to), **_report(report)})
        return
    _print_rings(report)
    _print_findings(report.findings)
    typer.echo(f"{to}: {report.count('found')} of {len(report.rings)} rings of {calibrant} found")


def _hints(
    detector: str,
    pixel_size: str | None,
    shape: str | None,
    wavelength: float | None,
    energy: float | None,
    from_bottom: bool,
) -> Hints:
    from sisockdaq.calibration import Hints
    from sisockdaq.calibration.geometry import ELECTRONVOLT_METRE

    if wavelength is not None and energy is not None:
        raise ConfigurationError("wavelength and energy are both given", remedy="give one of them")
    metres = None if wavelength is None else wavelength / 1e10
    if energy is not None:
        metres = ELECTRONVOLT_METRE / (energy * 1e3)
    sizes = _numbers(pixel_size, ",", "--pixel-size", "172, or 172,172")
    counts = _numbers(shape, "x", "--shape", "1043x981")
    if counts is not None and len(counts) != 2:
        raise ConfigurationError(f'--shape "{shape}" is not rows and columns', remedy="write it as 1043x981")
    return Hints(
        None if sizes is None else (sizes[0] / 1e6, sizes[-1] / 1e6),
        None if counts is None else (int(counts[0]), int(counts[1])),
        metres,
        detector,
        from_bottom,
    )


def _numbers(text: str | None, between: str, option: str, example: str) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.lower().replace("×", "x").split(between)]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 2 or not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ConfigurationError(f'{option} "{text}" is no size', remedy=f"write it as {example}")
    return numbers


def _image_and_mask(
    geometry: Geometry, image: str | None, mask: str | None, frame: int
) -> tuple[Any, Any, list[Finding]]:
    """Return image, mask and what is odd about them."""
    from sisockdaq.calibration import check_image, check_mask, load_image
    from sisockdaq.calibration.images import gaps_of
    from sisockdaq.integrate import load_mask

    findings: list[Finding] = []
    pixels = None if image is None else load_image(image, frame)
    if pixels is not None:
        findings += check_image(geometry, pixels.shape, str(image))
    if mask is None:
        return pixels, None if pixels is None else _usual_mask(geometry, str(image), pixels.shape), findings
    bad = load_mask(mask)
    shape = geometry.shape or (None if pixels is None else pixels.shape)
    gaps = None if pixels is None or pixels.shape != bad.shape else gaps_of(pixels)
    findings += check_mask(geometry.changed(shape=shape) if geometry.shape is None else geometry, bad, gaps, mask)
    fits = pixels is None or bad.shape == pixels.shape
    return pixels, bad if fits else None, findings


def _usual_mask(geometry: Geometry, image: str, shape: tuple[int, int]) -> Any:
    """Return the mask of the image's own file, or the gaps of a detector that pyFAI knows."""
    from sisockdaq.calibration.images import own_mask
    from sisockdaq.calibration.plausibility import known_gaps

    own = own_mask(image, shape)
    if own is not None:
        return own
    gaps = known_gaps(geometry)
    return gaps if gaps is not None and gaps.shape == shape else None


def _failed(findings: Sequence[Finding]) -> bool:
    return any(each.severity == "error" for each in findings)


def _count(findings: Sequence[Finding]) -> str:
    return f"{len(findings) or 'no'} finding{'s'[: len(findings) != 1]}"


def _print_findings(findings: Sequence[Finding], *, err: bool = False) -> None:
    for each in findings:
        typer.echo(f"{each.severity:<8} {each.about}: {each.reason}\n   → {each.remedy}", err=err)


def _finding(each: Finding) -> dict[str, str]:
    return {"about": each.about, "severity": each.severity, "reason": each.reason, "remedy": each.remedy}


def _report(report: RingReport) -> dict[str, Any]:
    return {
        "calibrant": report.calibrant,
        "rings": [
            {
                "number": ring.number,
                "d_A": ring.spacing,
                "2theta_deg": math.degrees(ring.angle),
                "radius_px": ring.radius,
                "state": ring.state,
                "shift_px": ring.shift,
            }
            for ring in report.rings
        ],
        "distance_scale": report.scale,
        "centre_shift_px": list(report.centre_shift),
        "spread_px": report.spread,
        "findings": [_finding(each) for each in report.findings],
    }


def _described(geometry: Geometry) -> dict[str, Any]:
    centre = geometry.beam_centre
    return {
        "file": geometry.origin,
        "kind": geometry.kind,
        "detector": geometry.detector or None,
        "shape": geometry.shape,
        "pixel_size_m": geometry.pixel_size,
        "distance_m": geometry.distance,
        "poni_m": [geometry.poni1, geometry.poni2],
        "rotations_rad": [geometry.rot1, geometry.rot2, geometry.rot3],
        "wavelength_m": geometry.wavelength,
        "beam_centre_px": centre,
        "beam_distance_m": geometry.beam_distance if centre is not None else None,
        "tilt_deg": math.degrees(geometry.tilt),
        "notes": list(geometry.notes),
    }


def _print_geometry(geometry: Geometry) -> None:
    from sisockdaq.calibration.geometry import ELECTRONVOLT_METRE

    height, width = geometry.pixel_size
    shape = geometry.shape
    images = "of unknown size" if shape is None else f"{shape[0]} rows × {shape[1]} columns"
    rows = [
        ("file", f"{geometry.origin} ({geometry.kind})"),
        ("detector", geometry.detector or "not named"),
        ("images", images),
        ("pixel", f"{height * 1e6:g} × {width * 1e6:g} µm (height × width)"),
        ("distance", f"{geometry.distance:.6g} m along the normal, {geometry.beam_distance:.6g} m along the beam"),
    ]
    if geometry.wavelength:
        energy = ELECTRONVOLT_METRE / geometry.wavelength * 1e-3
        rows.append(("wavelength", f"{geometry.wavelength * 1e10:.6g} Å, {energy:.5g} keV"))
    else:
        rows.append(("wavelength", "not known"))
    centre = geometry.beam_centre
    rows.append(("beam at", "nowhere" if centre is None else f"x = {centre[0]:.3f}, y = {centre[1]:.3f} pixels"))
    fit2d = geometry.to_fit2d() if centre is not None else {}
    if fit2d and geometry.tilt:
        rows.append(("tilt", f"{fit2d['tilt']:.4f}° towards {fit2d['tiltPlanRotation']:.2f}° (Fit2D)"))
    rows.append(("PONI", f"{geometry.poni1:.6g}, {geometry.poni2:.6g} m"))
    rows.append(("rotations", f"{geometry.rot1:.6g}, {geometry.rot2:.6g}, {geometry.rot3:.6g} rad"))
    rows += [("note", note) for note in geometry.notes]
    for name, text in rows:
        typer.echo(f"{name:<11} {text}")


def _print_rings(report: RingReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("ring", "d [Å]", "2θ [°]", "radius [pixels]", "", "off by [pixels]"):
        table.add_column(title, justify="left" if not title else "right")
    for ring in report.rings:
        shift = "" if math.isnan(ring.shift) else f"{ring.shift:+.1f}"
        angle = f"{math.degrees(ring.angle):.3f}"
        table.add_row(str(ring.number), f"{ring.spacing:.4g}", angle, f"{ring.radius:.1f}", ring.state, shift)
    Console().print(table)

"""What a site knows of its detector, under the names that go into files (Stream V2, see `nxmx`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.detector.description import DetectorOptions, Geometry
from sisockdaq.detector.layout import gap_mask
from sisockdaq.errors import MaskError
from sisockdaq.frames.messages import Description
from sisockdaq.site import Site

__all__ = ["detector_facts", "geometry_facts", "joined_masks", "present_detector", "site_mask", "try_geometry"]

_GAP, _MASKED = 1 << 0, 1 << 8
"""Bits of an NXmx pixel mask: no sensor there; masked by the user (NXdetector, ``pixel_mask``)."""


def detector_facts(detector: DetectorOptions) -> dict[str, Any]:
    """Return what the detector's description says by itself."""
    facts: dict[str, Any] = {
        "detector_description": detector.name or detector.model.upper(),
        "pixel_size_x": detector.pixel_size,
        "pixel_size_y": detector.pixel_size,
        "sensor_material": detector.sensor_material,
        "sensor_thickness": detector.sensor_thickness,
        "saturation_value": detector.saturation_value,
        "bit_depth_readout": detector.bit_depth,
    }
    return {key: value for key, value in facts.items() if value is not None}


def geometry_facts(site: Site) -> dict[str, Any]:
    """Return where the beam meets the detector; empty where the site has no geometry.

    The point is that of the direct beam (pyFAI's ``getFit2D``), in pixels, and the distance is along the beam.

    Raises
    ------
    GeometryError
        When the geometry is impossible, unreadable or of another shape.
    """
    detector = site.detector
    if detector is None or detector.geometry is None:
        return {}
    from sisockdaq.integrate import load_geometry  # here: pyFAI takes seconds to import, and not every site has one

    source = detector.geometry
    place = source.model_dump() if isinstance(source, Geometry) else site.resolve_input(source)
    geometry = load_geometry(place, shape=detector.shape, pixel_size=detector.pixel_size)
    beam = geometry.getFit2D()
    facts = {
        "beam_center_x": float(beam["centerX"]),
        "beam_center_y": float(beam["centerY"]),
        "detector_distance": float(beam["directDist"]) * 1e-3,
    }
    if geometry.wavelength:
        facts["incident_wavelength"] = float(geometry.wavelength) * 1e10
    return facts


def site_mask(site: Site, detector: DetectorOptions | None = None) -> npt.NDArray[np.uint32] | None:
    """Return the detector's gaps and the site's mask in the bits of NXmx, None where it has neither.

    `detector` is the detector as it is configured now, where that is not what the site describes.

    Raises
    ------
    MaskError
        When it is missing, unreadable or of another shape.
    """
    detector = detector or site.detector
    if detector is None:
        return None
    gaps = gap_mask(detector)
    bits = None if gaps is None else gaps.astype(np.uint32) * np.uint32(_GAP)
    if detector.mask is None:
        return bits
    from sisockdaq.integrate import load_mask  # here, as above

    name, separator, dataset = detector.mask.partition("::")
    masked = load_mask(f"{site.resolve_input(name)}{separator}{dataset}", detector.shape)
    user = masked.astype(np.uint32) * np.uint32(_MASKED)
    return user if bits is None else user | bits


def joined_masks(
    known: npt.NDArray[np.uint32] | None, bad: npt.NDArray[np.uint32] | None
) -> npt.NDArray[np.uint32] | None:
    """Return a site's mask with the bad pixels of a source; a gap is a gap, whatever else is said of it.

    Raises
    ------
    MaskError
        When they are of different shapes.
    """
    if known is None or bad is None:
        return bad if known is None else known
    if known.shape != bad.shape:
        raise MaskError(f"the pixel mask is {known.shape}, images are {bad.shape}", remedy="use another mask")
    joined: npt.NDArray[np.uint32] = np.where(known & np.uint32(_GAP), known, known | bad)
    return joined


def present_detector(site: Site, source: Description) -> DetectorOptions | None:
    """Return the detector as its receiver says that it is configured now, else as the site describes it."""
    described = site.detector
    changed = source.meta.get("detector")
    if described is None or not isinstance(changed, dict):
        return described
    return DetectorOptions.checked(**changed, geometry=described.geometry, mask=described.mask)


def try_geometry(site: Site, source: Description) -> None:
    """Try the site's geometry on the images that a source sends.

    Raises
    ------
    GeometryError
        When it is impossible, unreadable or of another shape.
    """
    detector = site.detector
    if detector is None or detector.geometry is None:
        return
    from sisockdaq.integrate import load_geometry  # here, as above

    given = detector.geometry
    place = given.model_dump() if isinstance(given, Geometry) else site.resolve_input(given)
    load_geometry(place, shape=(source.shape[0], source.shape[1]), pixel_size=detector.pixel_size)

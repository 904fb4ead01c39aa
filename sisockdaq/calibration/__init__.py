"""Where a detector stands, from whatever file says so: read, looked through for mistakes, drawn over an image.

`read_geometry` takes PONI files, Fit2D's parameters, SAXSdog's calibrations, and what DECTRIS detectors write into
their files; all become one `Geometry`, which makes pyFAI's object or a PONI file. `check_geometry` and its companions
tell what is implausible, `find_rings` whether the rings of a calibrant are where they should be, `draw_overlay` shows
it. Needs no network.
"""

from __future__ import annotations

from sisockdaq.calibration.geometry import Geometry
from sisockdaq.calibration.images import load_image
from sisockdaq.calibration.plausibility import Finding, check_geometry, check_image, check_mask, check_pixels
from sisockdaq.calibration.readers import Hints, from_fit2d, from_saxsdog, from_start_message, read_geometry
from sisockdaq.calibration.rings import Ring, RingReport, find_rings, load_calibrant

__all__ = [
    "Finding",
    "Geometry",
    "Hints",
    "Ring",
    "RingReport",
    "check_geometry",
    "check_image",
    "check_mask",
    "check_pixels",
    "find_rings",
    "from_fit2d",
    "from_saxsdog",
    "from_start_message",
    "load_calibrant",
    "load_image",
    "read_geometry",
]

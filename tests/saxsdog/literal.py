"""SAXSdog's formulas written down slowly, part by part of a pixel: what the fast engine is compared with."""

from typing import Any

import numpy as np

ANGSTROM = 1.00001495e-1


def calibration(shape=(40, 31), **changes: Any) -> dict[str, Any]:
    """Return a calibration as a client sends it; ``Geometry__BeamCenter=…`` changes one key."""
    made = {
        "Title": "a test",
        "Geometry": {
            "Tilt": {"TiltRotDeg": 0, "TiltAngleDeg": 0},
            "BeamCenter": [shape[0] * 0.4, shape[1] * 0.55],
            "DedectorDistanceMM": 800.0,
            "PixelSizeMicroM": [172.0, 172.0],
            "Imagesize": list(shape),
        },
        "Wavelength": 1.54,
        "Masks": [mask()],
        "Directory": ["data"],
        "Threads": 2,
        "GISAXSmode": False,
        "OverwriteFiles": False,
        "Live-Filelisting": False,
    }
    for name, value in changes.items():
        *way, last = name.split("__")
        place: Any = made
        for key in way:
            place = place[key]
        place[last] = value
    return made


def mask(**changes: Any) -> dict[str, Any]:
    """Return an entry of ``Masks``."""
    return {
        "MaskFile": "mask.msk",
        "Oversampling": 3,
        "PixelPerRadialElement": 1,
        "Name": "",
        "Phi-mode": False,
        "qStart": 0.0,
        "qStop": 10.0,
    } | changes


def angle(place, conf):
    """Return the scattering angle of complex places [pixels]."""
    geometry = conf["Geometry"]
    r, phi = np.abs(place) * geometry["PixelSizeMicroM"][0] * 1e-3, np.angle(place)
    d, tilt = geometry["DedectorDistanceMM"], np.radians(geometry["Tilt"]["TiltAngleDeg"])
    alpha = np.arcsin(np.sin(tilt) * np.sin(phi + np.radians(geometry["Tilt"]["TiltRotDeg"]) + np.pi / 2))
    path = np.sqrt(d**2 + r**2 - 2 * d * r * np.cos(np.pi / 2 + alpha))
    return np.arccos((d**2 + path**2 - r**2) / (2 * d * path))


def places(conf, n):
    """Return the complex places of all parts of all pixels, y upwards."""
    (rows, columns), (y, x) = conf["Geometry"]["Imagesize"], conf["Geometry"]["BeamCenter"]
    down = np.arange(rows * n) / n + 0.5 / n - rows + y
    right = np.arange(columns * n) / n + 0.5 / n - x
    return down[:, None] * 1j + right[None, :]


def radial(conf, entry, valid, image):
    """Return q (or the azimuth), intensity and error of one mask, and the labels' scale."""
    n, rows_columns = entry["Oversampling"], conf["Geometry"]["Imagesize"]
    place = places(conf, n)
    size = conf["Geometry"]["PixelSizeMicroM"][0] * 1e-3
    farthest = np.abs(place).max() * size
    q = 4 * np.pi * np.sin(angle(place, conf) / 2) / conf["Wavelength"] / ANGSTROM
    if entry["Phi-mode"]:
        scale = farthest / np.angle(place).max() / entry["PixelPerRadialElement"]
        labels = np.floor((np.angle(place) + np.pi) * scale).astype(int)
        middle = 4 * np.pi * np.sin(angle(places(conf, 1), conf) / 2) / conf["Wavelength"] / ANGSTROM
        valid = valid & (middle >= entry["qStart"]) & (middle <= entry["qStop"])
    else:
        scale = farthest / size / q.max() / entry["PixelPerRadialElement"]
        labels = np.floor(q * scale).astype(int)
    values = np.asarray(image, float)
    if "PolarizationCorrection" in conf:
        part = conf["PolarizationCorrection"]
        theta = angle(places(conf, 1), conf)
        phi = np.angle(places(conf, 1)) - np.radians(part["Angle"] - 90)
        f = part["Fraction"]
        seen = f * (1 - (np.sin(phi) * np.sin(theta)) ** 2) + (1 - f) * (1 - (np.cos(phi) * np.sin(theta)) ** 2)
        values = values / seen
    total, area = np.zeros(labels.max() + 1), np.zeros(labels.max() + 1)
    for row, column in np.ndindex(*rows_columns):
        if valid[row, column]:
            for label in labels[row * n : row * n + n, column * n : column * n + n].ravel():
                total[label] += values[row, column] / n**2
                area[label] += 1 / n**2
    with np.errstate(all="ignore"):
        intensity = np.where(area > 0, total / area, np.nan)
        error = np.sqrt(intensity * area) / area
    axis = (np.arange(labels.max() + 1) + 0.5) / scale - (np.pi if entry["Phi-mode"] else 0)
    there = np.isin(np.arange(labels.max() + 1), labels)
    return axis[there], intensity[there], error[there]


def parameters(entry, q, intensity):
    """Return I0, I1 and I2."""
    stop = min(entry["qStop"], q.max())
    chosen = np.flatnonzero(q >= entry["qStart"])
    first = chosen[0] if chosen.size else q.size
    behind = np.flatnonzero(q >= stop)[0]
    return {
        f"I{power}": np.nansum(intensity[first:behind] * q[first:behind] ** power) * (q[1] - q[0]) for power in range(3)
    }

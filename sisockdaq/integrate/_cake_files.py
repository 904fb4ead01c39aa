"""Cakes' maps as named arrays, for the folder of maps (`cache`)."""

from __future__ import annotations

import json

import numpy as np

from sisockdaq.integrate._cake_map import CakeMap
from sisockdaq.integrate.cache import Arrays, demand, demand_array

__all__ = ["pack_cake", "unpack_cake"]


def pack_cake(cake_map: CakeMap) -> Arrays:
    """Take a map apart."""
    about = {"shape": cake_map.shape, "bins": cake_map.bins, "lanes": cake_map.lanes}
    return {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "axis": cake_map.axis,
        "azimuth": cake_map.azimuth,
        "index": cake_map.index,
        "share": cake_map.share,
        "more_pixel": cake_map.more_pixel,
        "more_first": cake_map.more_first,
        "more_share": cake_map.more_share,
        "weights": cake_map.normalization,
    }


def unpack_cake(arrays: Arrays) -> CakeMap:
    """Put a map together; raise ValueError where its parts do not fit each other: kernels do not look twice."""
    about = json.loads(arrays["about"].tobytes())
    rows, columns = (int(size) for size in about["shape"])
    radial, azimuthal = (int(size) for size in about["bins"])
    lanes, pixels, size = int(about["lanes"]), rows * columns, radial * azimuthal
    number = arrays["more_pixel"].size
    demand("lanes", 1 <= lanes <= 4)
    demand_array("axis", arrays, np.float64, (radial,))
    demand_array("azimuth", arrays, np.float64, (azimuthal,))
    demand_array("index", arrays, np.uint32, (pixels,))
    demand_array("share", arrays, np.float32, (pixels * lanes if lanes > 1 else 0,))
    demand_array("more_pixel", arrays, np.uint32, (number,))
    demand_array("more_first", arrays, np.uint32, (number,))
    demand_array("more_share", arrays, np.float32, (number * lanes,))
    demand_array("weights", arrays, np.float32, (pixels,))
    demand("index", int(arrays["index"].max(initial=0)) <= size + 1)
    if number:
        demand("more_first", int(arrays["more_first"].max()) < size)
        in_order = bool((arrays["more_pixel"][1:] >= arrays["more_pixel"][:-1]).all())
        demand("more_pixel", in_order and int(arrays["more_pixel"][-1]) < pixels)
    names = "axis", "azimuth", "index", "share", "more_pixel", "more_first", "more_share", "weights"
    axis, azimuth, index, share, more_pixel, more_first, more_share, weights = (arrays[name] for name in names)
    segments = index, share, more_pixel, more_first, more_share
    return CakeMap((rows, columns), (radial, azimuthal), axis, azimuth, lanes, *segments, weights)

"""Bin maps on disk: what took seconds to compute is read in a fraction of one the next time.

Promises
--------
- A map is found again only for the same geometry, detector, mask, weights and options, by the same version of pyFAI and
  of this code; all of that is part of its file's name, as a digest.
- A file that is damaged or of another kind is never believed: its checksum is tested and its numbers held against
  each other. It is removed, a line in the log says so, and the map is computed.
- The folder does not grow above a limit: the maps that were not used for longest go first. A folder that cannot be
  written to costs a line in the log, no more.
- A file has its name only when it is whole; several processes may use one folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import kernels
from sisockdaq.integrate._arrayfile import pack_arrays, read_arrays
from sisockdaq.integrate._jit import stamp
from sisockdaq.integrate.geometry import Polarization, is_regular
from sisockdaq.integrate.maps import BinMap, SideList, Split

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

__all__ = [
    "Arrays",
    "MapCache",
    "Prepared",
    "default_cache_root",
    "demand",
    "demand_array",
    "map_key",
    "open_cache",
    "prepare_map",
]

T = TypeVar("T")
Arrays = dict[str, Any]
"""Arrays by name."""

_log = logging.getLogger(__name__)

DEFAULT_LIMIT: Final = 4 << 30
"""Bytes of all maps together: some forty of 9 megapixels."""

_ABANDONED: Final = 3600.0
"""Age from which a file that was never finished belongs to nobody any more [s]."""

_SUFFIX: Final = ".map"
_LANES: Final = {"whole": (1, 0), "pairs": (2, 1), "triples": (1, 2)}
"""Of each layout, the entries a bin and the shares a pixel."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A map and what is summed over it once.

    Attributes
    ----------
    bin_map : BinMap
    normalization, count : ndarray of float64, (bins,)
        Σ share · weight and Σ share of all its pixels.
    used : int
        Number of pixels that are not masked.
    """

    bin_map: BinMap
    normalization: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    used: int


def prepare_map(bin_map: BinMap) -> Prepared:
    """Sum up over a map what no frame changes."""

    def total(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        frame = kernels.prepare(weights.reshape(bin_map.shape), None)
        return np.asarray(kernels.sum_frame(bin_map, frame).signal, np.float64)

    pixels = bin_map.normalization.size
    masked = int(np.count_nonzero(bin_map.index[:pixels] == bin_map.masked))
    return Prepared(bin_map, total(bin_map.normalization), total(np.ones(pixels, np.float32)), pixels - masked)


def default_cache_root() -> Path:
    """``$XDG_CACHE_HOME/sisockdaq/maps``, else ``~/.cache/sisockdaq/maps``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "sisockdaq" / "maps"


def open_cache(place: bool | Path | str | MapCache) -> MapCache | None:
    """Return the maps of a folder, for True those of the user's folder, for False none."""
    if isinstance(place, bool):
        return MapCache() if place else None
    if not isinstance(place, MapCache | Path | str):
        raise ConfigurationError(f"cache is {place!r}", remedy="True, False, or the path of a folder")
    return place if isinstance(place, MapCache) else MapCache(place)


def map_key(
    pyfai: AzimuthalIntegrator,
    *,
    unit: str,
    split: Split,
    bins: int,
    solid_angle: bool,
    polarization: Polarization | None,
    mask: npt.NDArray[np.bool_] | None = None,
    weight: npt.NDArray[np.float32] | None = None,
    radial_range: tuple[float, float] | None = None,
    azimuth_range: tuple[float, float] | None = None,
    azimuth_bins: int | None = None,
) -> str:
    """Return a digest of all that decides a map; `weight` is what multiplies the normalization beside the geometry.

    With `azimuth_bins` it is that of a cake.
    """
    import pyFAI

    detector = pyfai.detector
    place = [pyfai.dist, pyfai.poni1, pyfai.poni2, pyfai.rot1, pyfai.rot2, pyfai.rot3, pyfai.wavelength]
    words = {
        "pyfai": pyFAI.version,
        "code": stamp(Path(__file__).with_name("maps.py" if azimuth_bins is None else "_cake_map.py")),
        "geometry": [None if value is None else float(value).hex() for value in place],
        "discontinuity": bool(pyfai.chiDiscAtPi),
        "parallax": repr(pyfai.parallax),
        "detector": [type(detector).__name__, dict(detector.get_config()), int(detector.orientation)],
        "shape": [int(size) for size in pyfai.get_shape()],
        "pixel": [float(detector.pixel1).hex(), float(detector.pixel2).hex()],
        "options": [unit, split, bins, bool(solid_angle), polarization, radial_range, azimuth_range],
        "azimuth_bins": azimuth_bins,
    }
    digest = hashlib.blake2b(json.dumps(words, sort_keys=True, default=str).encode(), digest_size=24)
    corners = None if is_regular(pyfai) else np.asarray(detector.get_pixel_corners())
    for name, array in (("mask", mask), ("weight", weight), ("corners", corners)):
        digest.update(f"\n{name} {None if array is None else (array.dtype.str, array.shape)}\n".encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


class MapCache:
    """Maps in one folder.

    Parameters
    ----------
    directory : path, optional
        Made when first written to; by default `default_cache_root`.
    limit : int
        Bytes of all maps together.
    """

    def __init__(self, directory: Path | str | None = None, *, limit: int = DEFAULT_LIMIT) -> None:
        self.directory = default_cache_root() if directory is None else Path(directory)
        self.limit = limit

    def get(self, key: str, make: Callable[[], BinMap]) -> Prepared:
        """Return the map of that key from the folder, else from `make`, and then keep it."""
        found = self.load(key)
        if found is None:
            found = prepare_map(make())
            self.store(key, found)
        return found

    def load(self, key: str) -> Prepared | None:
        """Read a map; None where there is none that can be believed."""
        return self.read(key, _unpack)

    def store(self, key: str, prepared: Prepared) -> None:
        """Write a map, unless it alone is above the limit, and remove others until all are below it."""
        self.write(key, _pack(prepared))

    def read(self, key: str, unpack: Callable[[Arrays], T]) -> T | None:
        """Read arrays and make of them what they are; None where `unpack` raises, or there are none."""
        path = self._path(key)
        try:
            found = unpack(read_arrays(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            _log.warning("the stored map %s cannot be used (%s); it is made anew", path, error or type(error).__name__)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now: among the last to go
        return found

    def write(self, key: str, arrays: Arrays) -> None:
        """Write arrays, unless they alone are above the limit, and remove others until all are below it."""
        if sum(array.nbytes for array in arrays.values()) > self.limit:
            _log.warning(
                "a map is larger than all of %s may be (%d bytes): it is not stored", self.directory, self.limit
            )
            return
        name = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".part", delete=False) as file:
                name = Path(file.name)
                file.write(pack_arrays(arrays).data)
            name.replace(self._path(key))
            self._shrink()
        except OSError as error:
            _log.warning("the map cannot be stored in %s: %s", self.directory, error.strerror or error)
            if name is not None:
                with contextlib.suppress(OSError):
                    name.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        maps: list[tuple[int, int, Path]] = []
        for path in self.directory.iterdir():
            with contextlib.suppress(OSError):  # another process may remove it first
                status = path.stat()
                if path.suffix == _SUFFIX:
                    maps.append((status.st_mtime_ns, status.st_size, path))
                elif path.suffix == ".part" and time.time() - status.st_mtime > _ABANDONED:
                    path.unlink()
        total = sum(size for _, size, _ in maps)
        for _, size, path in sorted(maps)[:-1]:
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def _pack(prepared: Prepared) -> dict[str, Any]:
    bin_map = prepared.bin_map
    about = {
        "layout": bin_map.layout,
        "bins": bin_map.bins,
        "entries": bin_map.entries,
        "shape": bin_map.shape,
        "used": prepared.used,
    }
    return {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "axis": bin_map.axis,
        "index": bin_map.index,
        "share": bin_map.share,
        "weights": bin_map.normalization,
        "side_pixel": bin_map.side.pixel,
        "side_first": bin_map.side.first,
        "side_start": bin_map.side.start,
        "side_share": bin_map.side.share,
        "normalization": prepared.normalization,
        "count": prepared.count,
    }


def _unpack(arrays: Arrays) -> Prepared:
    """Put a map together; raise ValueError where its parts do not fit each other: kernels do not look twice."""
    about = json.loads(arrays["about"].tobytes())
    rows, columns = (int(size) for size in about["shape"])
    bins, entries, pixels = int(about["bins"]), int(about["entries"]), rows * columns
    each, shares = _LANES[about["layout"]]
    share = {0: (0,), 1: (pixels,), 2: (pixels, 2)}[shares]
    number = arrays["side_pixel"].size
    start = arrays["side_start"]
    demand("entries", entries == each * bins)
    demand_array("axis", arrays, np.float64, (bins,))
    demand_array("index", arrays, np.uint16, ((pixels + 3) // 4 * 4,))
    demand_array("share", arrays, np.float32, share)
    demand_array("weights", arrays, np.float32, (pixels,))
    demand_array("side_pixel", arrays, np.int64, (number,))
    demand_array("side_first", arrays, np.int32, (number,))
    demand_array("side_start", arrays, np.int64, (number + 1,))
    demand_array("normalization", arrays, np.float64, (bins,))
    demand_array("count", arrays, np.float64, (bins,))
    demand("index", int(arrays["index"].max(initial=0)) <= entries + 1)
    demand("side_start", start[0] == 0 and bool((np.diff(start) >= 0).all()))
    demand_array("side_share", arrays, np.float64, (int(start[-1]),))
    if number:
        pixel, first = arrays["side_pixel"], arrays["side_first"]
        demand("side_pixel", pixel.min() >= 0 and pixel.max() < pixels)
        demand("side_first", first.min() >= 0 and bool((first + np.diff(start) <= bins).all()))
    side = SideList(arrays["side_pixel"], arrays["side_first"], start, arrays["side_share"])
    bin_map = BinMap(
        about["layout"],
        bins,
        entries,
        (rows, columns),
        arrays["axis"],
        arrays["index"],
        arrays["share"],
        arrays["weights"],
        side,
    )
    return Prepared(bin_map, arrays["normalization"], arrays["count"], int(about["used"]))


def demand_array(name: str, arrays: Arrays, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raise ValueError where an array that was read is not of this type and shape."""
    array = arrays[name]
    demand(name, array.dtype == dtype and array.shape == shape and array.flags.c_contiguous)


def demand(name: str, holds: Any) -> None:
    """Raise ValueError where what was read does not hold together."""
    if not holds:
        raise ValueError(f"its {name} cannot be right")

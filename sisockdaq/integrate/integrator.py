"""Azimuthal integration of images into curves: pyFAI's results, by our own kernels; usable without any network.

::

    from sisockdaq.integrate import Integrator

    integrator = Integrator("detector.poni", mask="mask.npy", bins=1000, error_model="poisson")
    result = integrator.integrate(image)
    result.axis, result.intensity, result.sigma

Promises
--------
- Same as pyFAI's ``integrate1d`` with ``method=(split, "csc", "cython")``: the sums of unsplit integers to the last
  bit, intensities to 1e-6. Three differences are on purpose: integers are summed as integers (pyFAI rounds pixels to
  float32 first), a bin without pixels is NaN, not 0, and nothing is taken for a dummy that was not named as one.
- One object may be used by several threads at once.
- Whatever is wrong with geometry, mask or options is said when the object is made.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import clip, kernels
from sisockdaq.integrate._binned import Binned
from sisockdaq.integrate._given import (
    Factors,
    check_dummy,
    frame_factor,
    image_array,
    mapping,
    number,
    region,
    whole_number,
    with_factors,
)
from sisockdaq.integrate._places import Places, detector_mask
from sisockdaq.integrate.background import CurveSource, split_background
from sisockdaq.integrate.cache import MapCache, open_cache
from sisockdaq.integrate.cake import Cake, CakeIntegrator
from sisockdaq.integrate.corrections import ImageSource, load_corrections, mark_unusable
from sisockdaq.integrate.geometry import (
    RadialUnit,
    geometry_parameters,
    load_geometry,
    polarized,
    poni_text,
    radial_unit,
)
from sisockdaq.integrate.kernels import ErrorModel
from sisockdaq.integrate.maps import BinMap, Split
from sisockdaq.integrate.median import median
from sisockdaq.integrate.result import Averager, Batch, Result, RingResult, stack
from sisockdaq.integrate.sectors import Sector
from sisockdaq.integrate.threads import MOST_THREADS

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

__all__ = ["Box", "Integrator", "Result"]

Box = tuple[int, int, int, int]
"""A region of an image: (x0, y0, x1, y1), the pixels with x0 ≤ x < x1 and y0 ≤ y < y1."""

_MOST_BINS = 1 << 28
_MOST_CAKES = 4
"""Cakes' maps that an integrator keeps, each some ten bytes a pixel: those of the numbers of bins asked for last."""


class Integrator:
    """Integrate images of one detector in one geometry.

    Parameters
    ----------
    geometry : path, mapping or pyFAI AzimuthalIntegrator
        PONI file, any other that `sisockdaq.calibration` reads, or parameters: as for `load_geometry`.
    shape : (rows, columns), optional
        Of the images; needed where the geometry does not name it.
    pixel_size : float or (float, float), optional
        Edge of a pixel [m]; needed with a mapping.
    mask : path or array, optional
        Pixels other than 0 are not used. By default the mask that pyFAI knows for the PONI's detector; as in pyFAI, a
        given mask replaces that one.
    bins : int
        Points of the curve.
    unit : str
        ``q_nm^-1``, ``q_A^-1``, ``2th_deg``, ``2th_rad`` or ``r_mm``.
    split : str
        ``no``, ``bbox`` for the pixels' bounding boxes, or ``full`` for their true outlines.
    radial_range : (float, float), optional
        Ends of the axis, in `unit`; by default those of the pixels that are used.
    azimuth_range : (float, float), optional
        Azimuth angles [deg] in pyFAI's convention, as in `Sector`; by default all.
    polarization : float, optional
        Polarization factor from -1 (vertical) to 1 (horizontal); None for no correction.
    polarization_angle : float
        By how much "horizontal" is turned away from the detector's rows [deg] (pyFAI's ``axis_offset``).
    solid_angle : bool
        Whether to correct for the solid angle.
    dark, flat, absorption : path or array, optional
        Images to subtract, and to divide by; files as fabio reads them, npy, or HDF5 (``file.h5::/dataset``). Several
        frames are averaged. A pixel whose flat or absorption is 0 or NaN, or whose dark is NaN, is not used. By
        default dark and flat are those of pyFAI's object, if it has any.
    background : Result, (axis, intensity[, sigma]), path or image, optional
        A curve (also a ``.chi`` or ``.dat`` file) is subtracted from the intensity, its errors are added in
        quadrature. An image is subtracted as the dark is: before the division by monitor and transmission.
    background_scale : float
        Factor for the background.
    error_model : str, optional
        For `Result.sigma`: ``poisson``, or ``azimuthal`` for the spread of the pixels within each bin.
    dummy : float, optional
        Pixels of this value are left out, as the fill value of lost packets is. (NaN always is.)
    delta_dummy : float, optional
        So are those that differ by no more than this from it.
    rois : mapping of str to (x0, y0, x1, y1), optional
        Regions to sum; upper ends not included.
    maximum : bool
        Whether to find the maximum of each frame.
    sectors : mapping of str to Sector, optional
        Parts with curves of their own, for `integrate_all`.
    threads : int
        Threads at work on a frame, or in a batch on as many frames. Results do not depend on it, to the last bit.
    cache : bool, path or MapCache
        Whether the maps are kept on disk, where the next integrator of the same options finds them: in the folder that
        is named, or in the user's (`default_cache_root`).

    Attributes
    ----------
    axis : ndarray of float64, (bins,)
        Bin centres, in the unit that was asked for.
    unit : RadialUnit
        That unit.
    geometry : dict of float
        Distance, point of normal incidence [m], rotations [rad] and, if known, wavelength [m].
    dummy, delta_dummy : float or None
        As the parameters; may be changed between frames.

    Raises
    ------
    GeometryError, MaskError, ConfigurationError
    """

    def __init__(
        self,
        geometry: Path | str | Mapping[str, Any] | AzimuthalIntegrator,
        *,
        shape: tuple[int, int] | None = None,
        pixel_size: float | tuple[float, float] | None = None,
        mask: Path | str | npt.NDArray[Any] | None = None,
        bins: int = 1000,
        unit: str = "q_nm^-1",
        split: Split = "no",
        radial_range: tuple[float, float] | None = None,
        azimuth_range: tuple[float, float] | None = None,
        polarization: float | None = None,
        polarization_angle: float = 0.0,
        solid_angle: bool = True,
        dark: ImageSource | None = None,
        flat: ImageSource | None = None,
        absorption: ImageSource | None = None,
        background: CurveSource | ImageSource | None = None,
        background_scale: float = 1.0,
        error_model: ErrorModel | None = None,
        dummy: float | None = None,
        delta_dummy: float | None = None,
        rois: Mapping[str, Box] | None = None,
        maximum: bool = False,
        sectors: Mapping[str, Sector] | None = None,
        threads: int = 1,
        cache: bool | Path | str | MapCache = False,
    ) -> None:
        if split not in get_args(Split):
            raise ConfigurationError(f'"{split}" is not a splitting', remedy=f"one of {', '.join(get_args(Split))}")
        if error_model is not None and error_model not in get_args(ErrorModel):
            known = ", ".join(get_args(ErrorModel))
            raise ConfigurationError(f'"{error_model}" is not an error model', remedy=f"one of {known}, or none")
        check_dummy(dummy, delta_dummy)
        if not math.isfinite(number("background_scale", background_scale)):
            raise ConfigurationError(f"background_scale is {background_scale}, not a finite number")
        self.unit = radial_unit(unit)
        pyfai = load_geometry(geometry, shape=shape, pixel_size=pixel_size)
        self.geometry = geometry_parameters(pyfai)
        size = (int(pyfai.get_shape()[0]), int(pyfai.get_shape()[1]))
        self._errors = error_model
        self.dummy = dummy
        self.delta_dummy = delta_dummy
        self._maximum = maximum
        self._threads = whole_number("threads", threads, 1, MOST_THREADS)
        curve, image = split_background(background, background_scale, size)
        self._pyfai, self._mask = pyfai, detector_mask(mask, pyfai)
        places = Places(
            pyfai,
            split=split,
            solid_angle=solid_angle,
            polarization=polarized(polarization, polarization_angle),
            corrections=load_corrections(
                size,
                dark=pyfai.detector.darkcurrent if dark is None else dark,
                flat=pyfai.detector.flatfield if flat is None else flat,
                absorption=absorption,
                background=image,
                dummy=dummy,
                delta_dummy=delta_dummy,
            ),
            mask=self._mask,
            background=curve,
            background_scale=background_scale,
            cache=open_cache(cache),
        )
        whole = Sector(azimuth_range=azimuth_range, radial_range=radial_range, bins=bins, unit=unit)
        self._whole = places.binned(whole)
        self._sectors = places.sectors(mapping("sectors", sectors), whole)
        self.axis = self._whole.axis
        self._rois = {name: region(name, box, size) for name, box in mapping("rois", rois).items()}
        places.forget()
        self._places, self._part = places, whole
        self._cakes: dict[tuple[int, int], CakeIntegrator] = {}
        self._making = Lock()

    @property
    def has_errors(self) -> bool:
        """Whether results have a sigma."""
        return self._errors is not None

    @property
    def rois(self) -> dict[str, Box]:
        """The regions that are summed, by name."""
        return dict(self._rois)

    @property
    def sectors(self) -> tuple[str, ...]:
        """Names of the parts that have curves of their own."""
        return tuple(self._sectors)

    def axis_of(self, sector: str) -> tuple[npt.NDArray[np.float64], RadialUnit]:
        """Return the axis of a sector's curve, and its unit."""
        part = self._part_of(sector)
        return part.axis, part.unit

    def count_of(self, sector: str | None = None) -> npt.NDArray[np.float64]:
        """Return how many pixels (with splitting: shares) each bin has, of the whole image or of a sector."""
        return self._part_of(sector).count

    def _part_of(self, sector: str | None) -> Binned:
        if sector is None:
            return self._whole
        if sector not in self._sectors:
            known = ", ".join(self._sectors) or "it has none"
            raise ConfigurationError(f'the integrator has no sector "{sector}"', remedy=f"one of: {known}")
        return self._sectors[sector]

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """True where no curve uses a pixel; None where all are used. Not to be changed."""
        return self._mask

    @property
    def poni(self) -> str:
        """The geometry as text of a PONI file."""
        return poni_text(self._pyfai)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return self._whole.map.shape

    @property
    def bins(self) -> int:
        """Points of the curve."""
        return self._whole.map.bins

    @property
    def bin_map(self) -> BinMap:
        """Which pixel counts to which bin."""
        return self._whole.map

    @property
    def pixels_used(self) -> int:
        """Number of pixels that are not masked."""
        return self._whole.used

    def warm_up(self, dtype: npt.DTypeLike, *, azimuth_bins: int | None = None) -> None:
        """Compile the kernels for images of that type, and touch the map's memory.

        With `azimuth_bins` also make the map of such cakes.
        """
        image = np.zeros(self.shape, dtype)
        if azimuth_bins is not None:
            self.integrate2d(image, azimuth_bins=azimuth_bins)
        self.integrate(image)
        self.integrate_all(image)

    def integrate(self, image: npt.NDArray[Any], *, monitor: float = 1.0, transmission: float = 1.0) -> Result:
        """Integrate one image.

        Parameters
        ----------
        image : ndarray, `shape`
            Integers or floats, of any byte order; not changed.
        monitor, transmission : float
            Their product multiplies the normalization (pyFAI's ``normalization_factor``).

        Raises
        ------
        ValueError, TypeError
            For an image of another shape, or of a type that is no number, or a monitor that is not a number above 0.
        """
        return self._integrate(image, frame_factor(monitor, transmission), self._threads)

    def _integrate(self, image: npt.NDArray[Any], factor: float, threads: int) -> Result:
        frame = self._frame(image)
        result = self._whole.integrate(
            frame, errors=self._errors, maximum=self._maximum, factor=factor, threads=threads
        )
        for name, box in self._rois.items():
            result.rois[name] = kernels.region_sum(self._whole.map, frame, box)
        return result

    def integrate_all(
        self, image: npt.NDArray[Any], *, monitor: float = 1.0, transmission: float = 1.0
    ) -> dict[str, Result]:
        """Integrate one image in every sector; parameters and errors as for `integrate`.

        Returns
        -------
        dict of Result
            By the sectors' names. Totals, maxima and unusable pixels are those of the sector's mask.
        """
        factor = frame_factor(monitor, transmission)
        frame = self._frame(image)
        return {
            name: binned.integrate(
                frame, errors=self._errors, maximum=self._maximum, factor=factor, threads=self._threads
            )
            for name, binned in self._sectors.items()
        }

    def integrate2d(
        self,
        image: npt.NDArray[Any],
        *,
        azimuth_bins: int = 360,
        bins: int | None = None,
        monitor: float = 1.0,
        transmission: float = 1.0,
    ) -> Cake:
        """Integrate one image in both directions: over the radial bins, and over bins of the azimuth.

        The first call for a number of bins makes its map, which takes as long as making the integrator. Ranges of both
        axes are the integrator's; by default the azimuth reaches as far as the pixels do.

        Parameters
        ----------
        azimuth_bins : int
        bins : int, optional
            Radial bins; by default as many as those of the curve.
        monitor, transmission : float
            As for `integrate`; so are the errors.
        """
        factor = frame_factor(monitor, transmission)
        frame = self._frame(image)
        return self._cake(bins, azimuth_bins).integrate(
            frame, errors=self._errors, factor=factor, threads=self._threads
        )

    def cake_count(self, azimuth_bins: int = 360, bins: int | None = None) -> npt.NDArray[np.float64]:
        """Return how many pixels (with splitting: shares) each bin of such cakes has: (azimuthal, radial)."""
        return self._cake(bins, azimuth_bins).count

    def _cake(self, bins: int | None, azimuth_bins: int) -> CakeIntegrator:
        """Make the map for so many bins, or take it from those that were used last."""
        bins = self.bins if bins is None else whole_number("bins", bins, 1, _MOST_BINS)
        key = bins, whole_number("azimuth_bins", azimuth_bins, 1, _MOST_BINS)
        with self._making:
            cake = self._cakes.pop(key, None)
            if cake is None:
                cake = self._places.cake(replace(self._part, bins=bins), azimuth_bins)
                self._places.forget()
            self._cakes[key] = cake
            while len(self._cakes) > _MOST_CAKES:
                del self._cakes[next(iter(self._cakes))]
        return cake

    def sigma_clip(
        self,
        image: npt.NDArray[Any],
        *,
        threshold: float = 5.0,
        iterations: int = 5,
        error_model: clip.RingErrors = "azimuthal",
        want_mask: bool = False,
        monitor: float = 1.0,
        transmission: float = 1.0,
    ) -> RingResult:
        """Integrate one image without the pixels that do not belong to their ring, as Bragg peaks on a background.

        Parameters
        ----------
        threshold, iterations, error_model
            As for `clip.sigma_clip`; pyFAI's ``thres`` and ``max_iter``.
        want_mask : bool
            Whether to tell which pixels were left out.
        monitor, transmission : float
            As for `integrate`; so are the errors.
        """
        factor = frame_factor(monitor, transmission)
        frame = self._frame(image)
        sums = clip.sigma_clip(
            self._whole.rings,
            frame,
            threshold=number("threshold", threshold),
            iterations=whole_number("iterations", iterations, 0, _MOST_BINS),
            error_model=error_model,
            want_mask=want_mask,
            threads=self._threads,
        )
        return self._of_rings(frame, sums, factor)

    def median(
        self,
        image: npt.NDArray[Any],
        *,
        quantiles: float | tuple[float, float] = 0.5,
        monitor: float = 1.0,
        transmission: float = 1.0,
    ) -> RingResult:
        """Take the median of each ring, or the mean of its pixels between two quantiles (from 0 to 1).

        The errors are those of Poisson statistics; other parameters and what is raised as for `integrate`.
        """
        factor = frame_factor(monitor, transmission)
        frame = self._frame(image)
        return self._of_rings(
            frame, median(self._whole.rings, frame, quantiles=quantiles, threads=self._threads), factor
        )

    def _of_rings(self, frame: kernels.Frame, sums: clip.RingSums, factor: float) -> RingResult:
        result = self._whole.of_rings(frame, sums, maximum=self._maximum, factor=factor, threads=self._threads)
        for name, box in self._rois.items():
            result.rois[name] = kernels.region_sum(self._whole.map, frame, box)
        return result

    def integrate_many(
        self, images: Iterable[npt.NDArray[Any]], *, monitor: Factors = 1.0, transmission: Factors = 1.0
    ) -> Batch:
        """Integrate several images into arrays with the frames first.

        Parameters
        ----------
        images : iterable of ndarray
            A stack (frames, rows, columns), an HDF5 dataset, a list or a generator; a few are in memory at a time.
            With several threads a generator must not write into an image again that it has given out.
        monitor, transmission : float, or one a frame
            As for `integrate`.

        Raises
        ------
        ValueError, TypeError
            As `integrate`, with the number of the image; for no image at all, or another number of monitors than of
            images.
        """
        return stack(self._each(images, monitor, transmission))

    def integrate_sum(
        self, images: Iterable[npt.NDArray[Any]], *, monitor: Factors = 1.0, transmission: Factors = 1.0
    ) -> Result:
        """Integrate several images into one curve, as if they were one exposure; holds no more than a few at a time.

        The same as `average` of their results: all sums are added, and the intensity is their quotient. Parameters and
        errors as for `integrate_many`.
        """
        averager = Averager()
        for result in self._each(images, monitor, transmission):
            averager.add(result)
        return averager.result()

    def _each(self, images: Iterable[npt.NDArray[Any]], monitor: Factors, transmission: Factors) -> Iterator[Result]:
        """Integrate frames in order; with several threads, so many frames at a time."""
        jobs = enumerate(with_factors(images, monitor, transmission))
        if self._threads == 1:
            for job in jobs:
                yield self._one_of_many(*job)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            running: deque[Future[Result]] = deque()
            for job in jobs:
                running.append(pool.submit(self._one_of_many, *job))
                if len(running) > 2 * self._threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def _one_of_many(self, place: int, job: tuple[npt.NDArray[Any], float, float]) -> Result:
        image, monitor, transmission = job
        try:
            return self._integrate(image, frame_factor(monitor, transmission), 1)
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {place}: {error}") from error

    def _frame(self, image: npt.NDArray[Any]) -> kernels.Frame:
        return kernels.prepare(*mark_unusable(image_array(image, self.shape), self.dummy, self.delta_dummy))

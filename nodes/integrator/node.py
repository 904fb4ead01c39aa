"""Azimuthal integration of the receiver's frames as a node: curves live, and losslessly for the writer.

Per frame it publishes (timeline "frame", at the frame's own time) ``curve`` and ``sigma`` over q or 2θ, ``total``,
``maximum``, ``unusable``, one ``roi_<name>`` for each region, and ``frame_number``; once a second (timeline "status")
how it fares. The same results go, as frames of kind "results", to a ring that the file writer takes losslessly.

Starting: the map from pixels to bins is computed and the kernels are compiled in a thread, before the first frame is
taken. pyFAI and the compiler are imported there, too, so that checking a site file stays quick. When the receiver is
configured anew, the map is made anew before the first frame of the new shape is taken.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from sisockdaq.base import DataNodeServer
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.layout import gap_mask
from sisockdaq.errors import ConfigurationError
from sisockdaq.frames import Description, FrameHeader, make_consumer, make_producer, parse_policy
from sisockdaq.integrate.geometry import Unit
from sisockdaq.integrate.masks import load_mask
from sisockdaq.nexus.facts import present_detector

if TYPE_CHECKING:
    from sisockdaq.integrate.integrator import Integrator as Engine
    from sisockdaq.integrate.integrator import Result
    from sisockdaq.integrate.live import LiveIntegration

__all__ = ["Integrator"]

_STOP_DEADLINE = 5.0
"""Time that the frame in hand has to be finished when the node ends [s]."""

_STATUS: dict[str, tuple[str | None, str]] = {
    "frame_rate": ("Hz", "Curves per second."),
    "frames_integrated": (None, "Frames that became a curve since the node started."),
    "frames_dropped": (None, "Frames that came and did not become a curve."),
    "results_dropped": (None, "Curves that the writer did not get, because it did not take them in time."),
}


class Integrator(DataNodeServer):
    """Azimuthal integration of every frame."""

    deadline: ClassVar[float] = 120.0  # the first start on a machine compiles the kernels

    class Options(DataNodeServer.Options):
        """What is integrated, and how."""

        frames: str | None = Field(
            None,
            description="Node whose images are integrated, or the address of a Stream V2 sender as "
            "stream2://host:port. Default: the only node with images.",
        )
        policy: str = Field(
            "lossless", description="Which frames are taken: lossless (every one), latest, or every: n."
        )
        bins: int = Field(1000, ge=1, le=65534, description="Points of a curve.")
        unit: Unit = Field("q_nm^-1", description="Radial axis: q in nm⁻¹ or Å⁻¹, 2θ in deg or rad, r in mm.")
        split: Literal["no", "bbox"] = Field(
            "no",
            description="Pixel splitting: no (each pixel counts to one bin; fastest) or bbox (pyFAI's bounding box; "
            "smoother curves with few pixels a bin).",
        )
        radial_range: tuple[float, float] | None = Field(
            None, description="Ends of the axis in its unit. Default: those of the pixels that are not masked."
        )
        geometry: str | dict[str, float] | None = Field(
            None,
            description="PONI file relative to the site file, or distance, poni1, poni2, rot1, rot2, rot3 and "
            "wavelength. Default: the detector's.",
        )
        mask: str | None = Field(
            None,
            description="Mask relative to the site file (edf, npy, tif, h5 or Fit2D; HDF5 also as file.h5::dataset). "
            "Default: the detector's.",
        )
        polarization: float | None = Field(
            None, ge=-1, le=1, description="Polarization factor, 1 for horizontal. Default: no correction."
        )
        solid_angle: bool = Field(True, description="Whether intensities are corrected for the solid angle of pixels.")
        error_model: Literal["poisson"] | None = Field(
            "poisson", description="How errors are estimated: poisson, or null for none."
        )
        rois: dict[str, tuple[int, int, int, int]] = Field(
            default_factory=dict,
            description="Regions to sum: {name: [x0, y0, x1, y1]}, upper ends not included; served as roi_<name>.",
        )
        keep: float = Field(3600.0, gt=0, description="Age of curves and numbers that are kept for queries [s].")

        @field_validator("split", mode="before")
        @classmethod
        def _yaml_no(cls, value: Any) -> Any:
            """Take YAML's unquoted ``no``, which is a boolean, as the word."""
            return "no" if value is False else value

        @field_validator("policy")
        @classmethod
        def _known_policy(cls, value: str) -> str:
            parse_policy(value)
            return value

        @field_validator("rois")
        @classmethod
        def _named(cls, rois: dict[str, tuple[int, int, int, int]]) -> dict[str, tuple[int, int, int, int]]:
            for name in rois:
                if not name.isidentifier():
                    raise ValueError(f'"{name}" is no name for a region: letters, digits and _, not first a digit')
            return rois

    def setup(self) -> Any:
        """Compute the map and compile, in a thread; then declare the fields and begin to consume."""
        self.live: LiveIntegration | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._last = (time.monotonic(), 0)
        self._addresses = (self._address(self._source()), self._address(str(self.name)))
        self.register_control("status", self.status)
        return self.in_thread(self._prepare).addCallback(self._begin)

    def teardown(self) -> Any:
        """Finish the frame in hand, then leave the rings."""
        self._stop.set()
        return self.in_thread(self._close)

    def status(self) -> dict[str, Any]:
        """Return how far the integration is; for the role control."""
        if self.live is None:
            return {"state": "preparing"}
        state = self.live.state
        return {
            "state": self._state(),
            "acquisition": state.acquisition,
            "frames_integrated": state.integrated,
            "frames_dropped": state.dropped,
            "results_dropped": state.results_dropped,
            "message": state.problem,
            "results": self._ring.status(),
        }

    # What it works with.

    def _source(self) -> str:
        if self.options.frames is not None:
            return str(self.options.frames)
        sources = self.site.image_sources() if self.site is not None else []
        if len(sources) == 1:
            return str(sources[0])
        known = f"the site has {', '.join(sources)}" if sources else "the site has none"
        raise ConfigurationError(
            f"{self.name}: which node's images are to be integrated? ({known})", remedy="set frames:"
        )

    def _address(self, source: str) -> str:
        if "://" in source:
            return source
        if self.state is None:
            raise ConfigurationError(f"{self.name} needs a site's state directory", remedy="start it as part of a site")
        return f"ring://{self.state.frames_socket(source)}"

    def _geometry(self) -> Any:
        """Return the geometry as `load_geometry` takes it: the node's own, else the detector's."""
        chosen = self.options.geometry
        if chosen is None and self.site is not None and self.site.detector is not None:
            chosen = self.site.detector.geometry
        if chosen is None:
            raise ConfigurationError(
                f"{self.name}: there is no geometry", remedy="set detector.geometry (or geometry of this node): a PONI"
            )
        if isinstance(chosen, str):
            return self._input(chosen)
        return chosen if isinstance(chosen, dict) else chosen.model_dump()

    def _mask_and_gaps(self, detector: DetectorOptions | None) -> npt.NDArray[np.bool_] | str | None:
        """Return the mask with the detector's gaps in it; the mask alone where there are no gaps."""
        gaps = gap_mask(detector) if detector is not None else None
        mask = self._mask()
        if detector is None or gaps is None or mask is None:
            return mask if gaps is None else gaps
        return load_mask(mask, detector.shape) | gaps

    def _mask(self) -> str | None:
        chosen = self.options.mask
        if chosen is None and self.site is not None and self.site.detector is not None:
            chosen = self.site.detector.mask
        if chosen is None:
            return None
        name, separator, dataset = chosen.partition("::")
        return f"{self._input(name)}{separator}{dataset}"

    def _input(self, name: str) -> str:
        return str(self.site.resolve_input(name)) if self.site is not None else name

    # Starting and ending.

    def _prepare(self) -> Engine:
        self._detector = self.site.detector if self.site is not None else None
        return self._engine(self._detector)

    def _follow(self, source: Description) -> Engine | None:
        """Return another engine when the detector has been configured anew; in the thread of the frames.

        The axis may be another one: what was integrated before is in the files, and leaves the cache.
        """
        from sisockdaq.integrate.live import results_description

        detector = present_detector(self.site, source) if self.site is not None else None
        if detector is None or detector == self._detector:
            return None
        engine = self._engine(detector)
        self._detector = detector
        self.store.forget("frame")
        self._declare_results(engine)
        self._ring.describe(results_description(str(self.name), engine))
        return engine

    def _engine(self, detector: DetectorOptions | None) -> Engine:
        from sisockdaq.integrate.integrator import Integrator as Engine

        options = self.options
        engine = Engine(
            self._geometry(),
            shape=detector.shape if detector is not None else None,
            pixel_size=detector.pixel_size if detector is not None else None,
            mask=self._mask_and_gaps(detector),
            bins=options.bins,
            unit=options.unit,
            split=options.split,
            radial_range=options.radial_range,
            polarization=options.polarization,
            solid_angle=options.solid_angle,
            error_model=options.error_model,
            rois=options.rois,
            maximum=True,
        )
        if detector is not None:
            engine.warm_up(detector.dtype)
        return engine

    def _begin(self, engine: Engine) -> None:
        from sisockdaq.integrate.live import LiveIntegration, result_slots, results_description

        self._declare(engine)
        source, own = self._addresses
        description = results_description(str(self.name), engine)
        self._ring = make_producer(own, description, slots=result_slots(description))
        self._images = make_consumer(source, name=str(self.name), policy=self.options.policy)
        self.live = LiveIntegration(engine, self._images, self._ring, self._publish, self._follow)
        self._thread = threading.Thread(
            target=self.live.run, args=(self._stop,), name=f"{self.name}-frames", daemon=True
        )
        self._thread.start()
        self.every(1.0, self._heartbeat)

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.join(_STOP_DEADLINE)
            self._images.close()
            self._ring.close()

    def _declare(self, engine: Engine) -> None:
        self._declare_results(engine)
        for name, (units, about) in _STATUS.items():
            self.series(name, units=units, description=about, timeline="status", keep=86400)
        self.series("state", type="string", description="waiting, ready, integrating or failing.", timeline="status")
        self.series("message", type="string", description="Why frames do not become curves.", timeline="status")

    def _declare_results(self, engine: Engine) -> None:
        from sisockdaq.integrate.live import scalars_of

        unit, keep = engine.unit, self.options.keep
        axis = {"axis": unit.quantity, "unit": unit.unit, "values": engine.axis.tolist()}
        curves = {"curve": "Mean intensity by bin."}
        if engine.has_errors:
            curves["sigma"] = "Standard error of the mean intensity."
        for name, about in curves.items():
            self.series(
                name,
                description=about,
                timeline="frame",
                type="array",
                shape=(engine.bins,),
                dtype="<f8",
                axes=[axis],
                keep=keep,
            )
        for name, about in {"frame_number": "The detector's number of the frame.", **scalars_of(engine)}.items():
            self.series(name, description=about, timeline="frame", keep=keep)

    # Publishing.

    def _publish(self, header: FrameHeader, result: Result) -> None:
        """Append one frame's results, in the thread of the frames."""
        from sisockdaq.integrate.live import scalar_values

        row: dict[str, Any] = {"frame_number": header.number, "curve": result.intensity, **scalar_values(result)}
        if result.sigma is not None:
            row["sigma"] = result.sigma
        self.store.timelines["frame"].append(header.time, row)

    def _heartbeat(self) -> None:
        if self.live is None:
            return
        state, now = self.live.state, time.monotonic()
        before, count = self._last
        self._last = (now, state.integrated)
        rate = (state.integrated - count) / (now - before) if now > before else 0.0
        row: dict[str, Any] = {
            "frame_rate": rate,
            "frames_integrated": state.integrated,
            "frames_dropped": state.dropped,
            "results_dropped": state.results_dropped,
            "state": self._state(),
            "message": state.problem,
        }
        self.store.timelines["status"].append(time.time(), row)

    def _state(self) -> str:
        if self.live is None or not self.live.state.attached:
            return "waiting"
        if self.live.state.problem:
            return "failing"
        return "integrating" if self.live.state.acquisition is not None else "ready"

"""Azimuthal integration of the receiver's frames as a node: curves live, and losslessly for the writer.

Per frame it publishes (timeline "frame", at the frame's own time) ``curve`` and ``sigma`` over q or 2θ, the same of
each sector as ``curve_<name>`` and ``sigma_<name>``, ``total``, ``maximum``, ``unusable``, one ``roi_<name>`` for each
region, ``frame_number`` and ``epoch``; once a second (timeline "status") how it fares. The same results go, as frames
of kind "results", to a ring that the file writer takes losslessly. Cakes (``cake``, timeline "cake") are too large for
that ring and for feeds: they are for queries, as many as fit into 256 MB, and in the node's own files (``save``).

Where ``monitor`` or ``transmission`` is a field of another node, its feed is listened to, and each
frame is divided by the value of its own time, which is among its numbers.

Starting: the map from pixels to bins is computed (or read from the site's state directory) and the kernels are compiled
in a thread, before the first frame is taken. pyFAI and the compiler are imported there, too, so that checking a site
file stays quick. When the receiver is configured anew, the map is made anew before the first frame of the new shape is
taken.

Geometry, mask and all else of how frames are integrated can be changed while it runs, by the control procedure
``configure`` (`changing`). Each change begins an epoch, and each result tells its own: the field listing has the axis
of the newest one, and when the axis changes, older curves leave the live cache.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator
from sisockdaq.nodes.integrator.changing import Changing, changed_settings, refuse_foreign_files
from sisockdaq.nodes.integrator.keeping import Keeper

from sisockdaq.base import DataNodeServer
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.layout import gap_mask
from sisockdaq.errors import ConfigurationError
from sisockdaq.frames import Description, FrameHeader, Producer, make_consumer, make_producer, parse_policy
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator
from sisockdaq.listening import LOOK, Listening
from sisockdaq.nexus.facts import present_detector

if TYPE_CHECKING:
    from sisockdaq.integrate.epochs import Epoch, EpochBook
    from sisockdaq.integrate.live import LiveIntegration
    from sisockdaq.integrate.reduction import Reduced, Reducer

__all__ = ["Integrator"]

_STOP_DEADLINE = 5.0
"""Time that the frame in hand has to be finished when the node ends [s]."""

_STATUS: dict[str, tuple[str | None, str]] = {
    "frame_rate": ("Hz", "Curves per second."),
    "frames_integrated": (None, "Frames that became a curve since the node started."),
    "frames_dropped": (None, "Frames that came and did not become a curve."),
    "frames_not_normalized": (
        None,
        "Frames without intensities, because their monitor or transmission was missing or not above 0.",
    ),
    "results_dropped": (None, "Curves that the writer did not get, because it did not take them in time."),
    "curves_saved": (None, "Frames whose curves are in files of reduced frames since the node started."),
    "curves_not_saved": (None, "Frames whose curves should be in such files and are not."),
    "present_epoch": (None, "Number of the calibration and settings that the next frame is integrated with."),
}

_KEEP_EPOCHS = 30.0
"""How often the numbers of frames by epoch are written down [s]."""

_WRITER_DEADLINE = 10.0
"""Time that the writer has to take the last results before their ring is made anew [s]."""


_CAKE_BYTES = 256 << 20
"""Memory of the cakes that are kept for queries; the oldest leave."""

_LOOK_AGAIN = 0.02
"""How often it is looked whether it has [s]."""


class Integrator(DataNodeServer):
    """Azimuthal integration of every frame."""

    deadline: ClassVar[float] = 120.0  # the first start on a machine compiles the kernels

    _description: Description
    _ring: Producer
    _book: EpochBook

    class Options(DataNodeServer.Options, IntegrationSettings):
        """What is integrated, and how; files are relative to the site file."""

        frames: str | None = Field(
            None,
            description="Node whose images are integrated, or the address of a Stream V2 sender as "
            "stream2://host:port. Default: the only node with images.",
        )
        policy: str = Field(
            "lossless", description="Which frames are taken: lossless (every one), latest, or every: n."
        )
        keep: float = Field(3600.0, gt=0, description="Age of curves and numbers that are kept for queries [s].")
        save: list[Literal["nxazint", "nxcansas", "chi", "dat"]] = Field(
            [],
            description="Files of reduced frames, one set an acquisition: nxazint (NeXus), nxcansas (SasView), chi, "
            "dat (text, one a frame). Default: none; a file writer puts the curves into its master anyway.",
        )
        save_directory: Path = Field(
            Path("reduced"), description="Folder of these files, relative to the site's data root."
        )
        save_overwrite: bool = Field(False, description="Whether files of the same names give way.")
        keep_maps: bool = Field(
            True, description="Whether maps are kept in the site's state directory, where the next start finds them."
        )

        @field_validator("policy")
        @classmethod
        def _known_policy(cls, value: str) -> str:
            parse_policy(value)
            return value

    def setup(self) -> Any:
        """Compute the map and compile, in a thread; then declare the fields and begin to consume."""
        self.live: LiveIntegration | None = None
        self._thread: threading.Thread | None = None
        self._keeper: Keeper | None = None
        self._listening = Listening(self)
        self._stop = threading.Event()
        self._last = (time.monotonic(), 0)
        self._detector: DetectorOptions | None = self.site.detector if self.site is not None else None
        given = self.options.model_dump(include=set(IntegrationSettings.model_fields))
        self._wanted = IntegrationSettings.model_validate(given)
        self._changing = Changing(self._build, self._clear, self._adopt, lambda: self._detector)
        self._addresses = (self._address(self._source()), self._address(str(self.name)))
        self.register_control("status", self.status)
        self.register_control("configure", self.configure, in_thread=True)
        self.register_control("get_settings", self.get_settings)
        self.register_control("epochs", self.epochs)
        return self.in_thread(self._prepare).addCallback(self._begin)

    def after_onJoin(self, details: Any) -> Any:  # noqa: N802 - sisock's name
        """Listen to monitors, after each login."""
        return self._listening.joined()

    def teardown(self) -> Any:
        """Finish the frame in hand, then leave the rings."""
        self._stop.set()
        return self.in_thread(self._close)

    # Controls.

    def status(self) -> dict[str, Any]:
        """Return how far the integration is; for the role control."""
        if self.live is None:
            return {"state": "preparing"}
        state = self.live.state
        return {
            "state": self._state(),
            "acquisition": state.acquisition,
            "epoch": self._book.number,
            "frames_integrated": state.integrated,
            "frames_dropped": state.dropped,
            "frames_not_normalized": state.not_normalized,
            "results_dropped": state.results_dropped,
            **self._saved(),
            "message": self._problem(),
            "results": self._ring.status(),
        }

    def configure(self, changes: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Change geometry, mask or any other setting of the integration from the next frame on; for the role control.

        Parameters
        ----------
        changes : mapping
            New values by the names of the options; all others stay. Files are relative to the site file, and lie in
            the site's folder or below its data root. A geometry or mask of None is the detector's own.

        Returns
        -------
        dict
            The epoch that begins with it, as in `epochs`.

        Raises
        ------
        ConfigurationError, GeometryError, MaskError
            For anything wrong, all of it at once; nothing has changed then.
        AcquisitionRefused
            For what cannot be changed while an acquisition is under way: the points, names and number of the curves.
        """
        if self.live is None:
            raise ConfigurationError(f"{self.name} is still preparing", remedy="ask again in some seconds")
        wanted_changes = {**(changes or {}), **more}
        wanted = changed_settings(self._wanted, wanted_changes)
        folders = [self.site.path, self.site.resolve_output()] if self.site is not None else [Path.cwd()]
        refuse_foreign_files(wanted_changes, self._input, folders)
        return asdict(self._changing.change(self.live, wanted, self._named(wanted, self._detector)))

    def get_settings(self) -> dict[str, Any]:
        """Return all settings as they are now; for the role control."""
        return self._wanted.model_dump(mode="json")

    def epochs(self) -> list[dict[str, Any]]:
        """Return what each number of an epoch means, and how many frames have it; for the role control."""
        return [] if self.live is None else self._book.listing()

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

    def _named(self, settings: IntegrationSettings, detector: DetectorOptions | None) -> IntegrationSettings:
        """Return the settings with the detector's geometry and mask, where they name none."""
        if detector is None:
            return settings
        found: dict[str, Any] = {}
        if settings.geometry is None and detector.geometry is not None:
            given = detector.geometry
            found["geometry"] = given if isinstance(given, str) else given.model_dump()
        if settings.mask is None:
            found["mask"] = detector.mask
        return settings.model_copy(update=found)

    def _input(self, name: str) -> Path:
        return Path(self.site.resolve_input(name)) if self.site is not None else Path(name)

    # Starting and ending.

    def _prepare(self) -> Reducer:
        from sisockdaq.integrate.epochs import EpochBook

        reducer, self._detector = self._build(self._named(self._wanted, self._detector))
        self._book = EpochBook(self.state.path / "epochs" / f"{self.name}.json" if self.state else None)
        self._book.begin(reducer, time.time())
        return reducer

    def _build(
        self, settings: IntegrationSettings, detector: DetectorOptions | None = None
    ) -> tuple[Reducer, DetectorOptions | None]:
        """Make a reducer for a detector, by default the present one, and compile what its frames need."""
        from sisockdaq.integrate.cache import MapCache
        from sisockdaq.integrate.reduction import Reducer

        detector = detector or self._detector
        if settings.geometry is None:
            raise ConfigurationError(
                f"{self.name}: there is no geometry", remedy="set detector.geometry (or geometry of this node)"
            )
        kept = self.options.keep_maps and self.state is not None
        integrator = make_integrator(
            settings,
            resolve=self._input,
            shape=detector.shape if detector is not None else None,
            pixel_size=detector.pixel_size if detector is not None else None,
            hidden=gap_mask(detector) if detector is not None else None,
            cache=MapCache(self.state.path / "maps") if kept and self.state is not None else False,
        )
        reducer = Reducer(integrator, settings)
        if detector is not None:
            reducer.warm_up(detector.dtype)
        return reducer, detector

    def _follow(self, source: Description) -> Reducer | None:
        """Return another reducer when the detector has been configured anew; in the thread of the frames."""
        detector = present_detector(self.site, source) if self.site is not None else None
        if detector is None or detector == self._detector:
            return None
        reducer, self._detector = self._build(self._named(self._wanted, detector), detector)
        self._take_over(reducer)
        return reducer

    def _clear(self, reducer: Reducer) -> None:
        """Give the writer time to take the last results, where their ring has to be made anew for another length."""
        from sisockdaq.integrate.live import results_description

        if results_description(str(self.name), reducer).shape == self._description.shape:
            return
        end = time.monotonic() + _WRITER_DEADLINE
        while time.monotonic() < end and not self._stop.wait(_LOOK_AGAIN):
            if not any(part["held"] or part["queued"] for part in self._ring.status()["consumers"].values()):
                return

    def _adopt(self, reducer: Reducer, wanted: IntegrationSettings, held: str) -> Epoch:
        """Integrate by another reducer from the next frame on; in the thread of the frames."""
        assert self.live is not None
        epoch = self._take_over(reducer, held)
        self._wanted = wanted
        self.live.use(reducer, self._ring)
        self._listening.follow(self.live.factors.series)
        return epoch

    def _take_over(self, reducer: Reducer, held: str = "") -> Epoch:
        """Tell everybody what frames become from now on, and begin an epoch.

        With another axis, what was integrated before leaves the cache: it is in the files, and in the epoch's book.
        """
        from sisockdaq.integrate.live import results_description
        from sisockdaq.integrate.reduction import same_axes, same_cakes

        assert self.live is not None
        if not same_cakes(self.live.reducer, reducer):
            if "cake" in self.store.timelines:
                self.store.forget("cake")
            self._declare_cake(reducer)
        if not same_axes(self.live.reducer, reducer):
            self.store.forget("frame")
            self._declare_results(reducer)
        epoch = self._book.begin(reducer, time.time(), held)
        description = results_description(str(self.name), reducer, self._book.newest())
        if description.shape == self._description.shape:
            self._ring.describe(description)
        else:
            self._open_results(description)
        self._description = description
        return epoch

    def _open_results(self, description: Description) -> None:
        """Give out results of another length: a ring's frames keep theirs, so there has to be another ring."""
        from sisockdaq.integrate.live import result_slots

        self._ring.close()
        self._ring = make_producer(self._addresses[1], description, slots=result_slots(description))

    def _begin(self, reducer: Reducer) -> None:
        from sisockdaq.integrate.live import LiveIntegration, result_slots, results_description

        self._declare(reducer)
        source, own = self._addresses
        self._description = results_description(str(self.name), reducer, self._book.newest())
        self._ring = make_producer(own, self._description, slots=result_slots(self._description))
        if self.options.save:
            self._keeper = Keeper(self._save_folder(), self.options.save, overwrite=self.options.save_overwrite)
        self._images = make_consumer(source, name=str(self.name), policy=self.options.policy)
        self.live = LiveIntegration(reducer, self._images, self._ring, self._publish, self._follow, self._ended)
        self._thread = threading.Thread(
            target=self.live.run, args=(self._stop,), name=f"{self.name}-frames", daemon=True
        )
        self._listening.follow(self.live.factors.series)
        self._thread.start()
        self.every(1.0, self._heartbeat)
        self.every(LOOK, self._listening.look)
        self.every(_KEEP_EPOCHS, self._book.keep, in_thread=True)

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.join(_STOP_DEADLINE)
            self._images.close()
            self._ring.close()
            self._book.keep()
        if self._keeper is not None:
            self._keeper.close(_STOP_DEADLINE)

    def _save_folder(self) -> Path:
        folder = self.options.save_directory
        return Path(self.site.resolve_output(folder)) if self.site is not None else folder

    def _declare(self, reducer: Reducer) -> None:
        self._declare_results(reducer)
        self._declare_cake(reducer)
        for name, (units, about) in _STATUS.items():
            self.series(name, units=units, description=about, timeline="status", keep=86400)
        self.series("state", type="string", description="waiting, ready, integrating or failing.", timeline="status")
        self.series(
            "message",
            type="string",
            description="Why frames do not become curves, have no intensities, or get into no files.",
            timeline="status",
        )

    def _declare_results(self, reducer: Reducer) -> None:
        from sisockdaq.integrate.live import curve_fields

        keep = self.options.keep
        for name, (about, axis) in curve_fields(reducer).items():
            self.series(
                name,
                description=about,
                timeline="frame",
                type="array",
                shape=axis.values.shape,
                dtype="<f8",
                axes=[{"axis": axis.unit.quantity, "unit": axis.unit.unit, "values": axis.values.tolist()}],
                keep=keep,
            )
        self.series("frame_number", description="The detector's number of the frame.", timeline="frame", keep=keep)
        for name, meaning in reducer.numbers.items():
            self.series(name, units=meaning.unit, description=meaning.description, timeline="frame", keep=keep)

    def _declare_cake(self, reducer: Reducer) -> None:
        if reducer.cake_axes is None:
            return
        radial, azimuth = reducer.cake_axes
        shape = azimuth.size, radial.values.size
        self.series(
            "cake",
            description="Mean intensity by azimuth and radial bin.",
            timeline="cake",
            type="array",
            shape=shape,
            dtype="<f8",
            axes=[
                {"axis": "azimuth", "unit": "deg", "values": azimuth.tolist()},
                {"axis": radial.unit.quantity, "unit": radial.unit.unit, "values": radial.values.tolist()},
            ],
            keep=self.options.keep,
            max_samples=max(1, _CAKE_BYTES // (8 * shape[0] * shape[1])),
            feed=False,
        )

    # Publishing.

    def _publish(self, header: FrameHeader, result: Reduced) -> None:
        """Append one frame's results, in the thread of the frames."""
        from sisockdaq.integrate.live import curve_values

        self._book.count(result.epoch)
        row: dict[str, Any] = {"frame_number": header.number, **curve_values(result), **result.numbers}
        self.store.timelines["frame"].append(header.time, row)
        if result.cake is not None:
            self.store.timelines["cake"].append(header.time, {"cake": result.cake.intensity})
        acquisition = None if self.live is None else self.live.state.acquisition
        if self._keeper is not None and self.live is not None and acquisition is not None and header.index >= 0:
            self._keeper.add(acquisition, self.live.reducer, header, result)

    def _ended(self, acquisition: str) -> None:
        if self._keeper is not None:
            self._keeper.end()

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
            "frames_not_normalized": state.not_normalized,
            "results_dropped": state.results_dropped,
            **self._saved(),
            "present_epoch": self._book.number,
            "state": self._state(),
            "message": self._problem(),
        }
        self.store.timelines["status"].append(time.time(), row)

    def _saved(self) -> dict[str, int]:
        keeper = self._keeper
        return {
            "curves_saved": 0 if keeper is None else keeper.saved,
            "curves_not_saved": 0 if keeper is None else keeper.not_saved,
        }

    def _problem(self) -> str:
        """Say why frames do not become curves, else why they have no intensities, else why they get into no files."""
        state = None if self.live is None else self.live.state
        if state is not None and (state.problem or state.unknown_factor):
            return state.problem or self._listening.problem or state.unknown_factor
        return self._listening.problem or ("" if self._keeper is None else self._keeper.problem)

    def _state(self) -> str:
        if self.live is None or not self.live.state.attached:
            return "waiting"
        if self.live.state.problem:
            return "failing"
        return "integrating" if self.live.state.acquisition is not None else "ready"

"""The receiver as a node: it opens the ports and the frame ring, shows what comes, and answers for what was lost.

The packets themselves never come near the network: they go through `sisockdaq.detector.receiver` into shared memory,
where writer, integrator and others on this machine find them. Served are the numbers of each frame, rates and losses
once a second, and the image itself, at most once an `image_interval`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sisockdaq.nodes.detector_receiver.changing import Changing
from sisockdaq.nodes.detector_receiver.conversion import ConversionOptions, JungfrauPart
from sisockdaq.nodes.detector_receiver.kept import KeptConfiguration
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from sisockdaq.base import DataNodeServer
from sisockdaq.conversion.converter import FrameStatistics
from sisockdaq.conversion.runs import DarkRuns
from sisockdaq.detector.description import DetectorOptions, Geometry
from sisockdaq.detector.raw import AcquisitionRecording
from sisockdaq.detector.receiver import Receiver, ReceiverSettings
from sisockdaq.detector.recording import BUNCH_PACKETS, GIGAFROST_PACKETS, SLS_PACKETS, RecordingWriter
from sisockdaq.detector.sockets import buffer_warning, granted_buffer, open_sockets
from sisockdaq.errors import ConfigurationError, GeometryError, SisockdaqError, StorageError
from sisockdaq.frames import Arm, Description, FrameHeader, Producer, make_consumer, make_producer
from sisockdaq.frames.raw import CAN_RECORD, RawWish
from sisockdaq.frames.stream2_bus import Stream2Output
from sisockdaq.nexus.identity import user_obstacle, writing_as

__all__ = ["DetectorReceiver"]

_log = Logger("sisockdaq.detector_receiver")

_RING_SHARE = 0.1
"""Share of the free memory that the ring takes when the site does not say."""

_RING_BYTES = 2**29
"""Most memory that the ring takes by itself [bytes]: 256 frames of 1 Mpix uint16, a second of a fast detector."""

_FEWEST_SLOTS, _MOST_SLOTS = 8, 256

_SPARE_SLOTS = 4
"""Slots beyond those of incomplete frames: two in the receiver's hand, two with consumers."""

_IMAGES_KEPT = 4
"""Images kept for `get_data`: a look at the last seconds. All images are in the files."""

_STATUS = {
    "frame_rate": ("Hz", "Frames that came per second."),
    "packet_rate": ("Hz", "Packets that came per second."),
    "data_rate": ("B/s", "Bytes that came per second."),
    "ring_use": ("%", "Share of the frame ring that consumers hold."),
    "packets_lost_total": (None, "Packets that did not come, of all frames so far."),
    "frames_partial": (None, "Frames published with lost packets."),
    "frames_ring_full": (None, "Frames dropped because the ring was full."),
    "frames_policy": (None, "Partial frames dropped, as the site chose."),
    "packets_late": (None, "Packets of frames that were closed already."),
    "packets_duplicate": (None, "Packets that had come before."),
    "packets_invalid": (None, "Packets of a wrong size, version, detector, module or number; `status` has the kinds."),
    "packets_dropped_by_kernel": (None, "Packets lost because a socket's buffer was full."),
}
"""Number fields of the timeline "status": name → (units, description). Counts are since the receiver started."""

_CONVERTED = (
    ("pixels_without_value", None, "Pixels of the frame that are bad, lost, or in no gain stage."),
    ("pixels_saturated", None, "Pixels of the frame that are too bright for the lowest gain."),
)
"""Further number fields of each frame where frames are converted: name, units, description."""


class UdpPort(BaseModel):
    """Where one stream of the detector arrives."""

    model_config = ConfigDict(extra="forbid")

    port: int = Field(ge=0, le=65535, description="UDP port; 0 takes any free one.")
    address: str = Field("127.0.0.1", description="Address of this machine to listen on; 0.0.0.0 for all.")


class Stream2Options(BaseModel):
    """The same frames as DECTRIS Stream V2 over ZeroMQ."""

    model_config = ConfigDict(extra="forbid")

    bind: str = Field(description="ZeroMQ address to bind, for example tcp://0.0.0.0:31001.")
    compression: Literal["bslz4", "none"] = Field("bslz4", description="Compression of the images.")


class DetectorReceiver(Changing, DataNodeServer):
    """Frames of a JUNGFRAU, EIGER or GigaFRoST, from UDP packets."""

    class Options(DataNodeServer.Options):
        """Ports, and how frames are put together."""

        udp: list[UdpPort] = Field(min_length=1, description="UDP ports, one a stream, in the order of the streams.")
        detector: DetectorOptions | None = Field(None, description="The detector. Default: the site's.")
        ring_slots: int | None = Field(
            None, ge=4, le=65536, description="Frames in shared memory. Default: from the memory there is, 8 to 256."
        )
        hang_after: float = Field(
            10.0,
            gt=0,
            description="How long a consumer that holds frames may make no progress before a full ring throws it out "
            "[s].",
        )
        frame_timeout: float = Field(
            0.5,
            gt=0,
            le=60,
            description="Time after a frame's first packet at which it is closed without the rest [s].",
        )
        overtaken_by: int = Field(
            4, ge=1, le=64, description="A frame is closed when one newer by so many numbers begins."
        )
        partial: Literal["deliver", "drop"] = Field("deliver", description="What becomes of frames with lost packets.")
        image_id: Literal["frame_number", "bunch_id"] = Field(
            "frame_number", description="What numbers the frames; a simulated JUNGFRAU has no bunch id."
        )
        receive_buffer: int = Field(
            32 * 2**20, ge=2**16, le=2**30, description="Receive buffer of each socket [bytes]."
        )
        image_interval: float = Field(
            1.0, ge=0.02, le=3600, description="Shortest time between two images that are shown live [s]."
        )
        conversion: ConversionOptions | None = Field(
            None, description="Convert a JUNGFRAU's raw pixels to energies or photons. Default: raw."
        )
        stream2: Stream2Options | None = Field(None, description="Send acquisitions as Stream V2 as well. Default: no.")
        record: Path | None = Field(
            None,
            description="Folder to record all packets into, as they come; relative to the data root. Default: none. "
            "For diagnosis: it costs another copy of each packet.",
        )

        @model_validator(mode="after")
        def _enough_slots(self) -> DetectorReceiver.Options:
            least = self.overtaken_by + _SPARE_SLOTS
            if self.ring_slots is not None and self.ring_slots < least:
                raise ValueError(
                    f"ring_slots must be at least {least}: {self.overtaken_by} frames may be incomplete at once"
                )
            return self

    receiver: Receiver | None = None
    _producer: Producer | None = None
    _stream2: Stream2Output | None = None
    _recording: RecordingWriter | None = None
    _darks: DarkRuns | None = None
    _broken = ""
    _changes = 0

    def setup(self) -> Any:
        """Declare the fields; open ports and ring in a thread, where compiling and touching memory may take a while."""
        self._changing = threading.Lock()
        self._described = described = self._find_detector()
        assert self.state is not None
        self._kept = KeptConfiguration(
            self.state.path / f"detector-{self.name}.json", described, [(e.address, e.port) for e in self.options.udp]
        )
        self.detector, self._addresses = self._kept.load()
        self.jungfrau = self._jungfrau_part(self.detector)
        self._darks = self.jungfrau.runs
        for name, units, about in (
            ("frame_number", None, "Number of the frame, as the detector counts."),
            ("sum", None, "Sum over the received pixels; the fill value is left out."),
            ("maximum", None, "Largest received pixel; the fill value is left out."),
            ("packets_received", None, "Packets of the frame that came."),
            ("packets_lost", None, "Packets of the frame that did not come."),
            ("assembly_time", "s", "From the frame's first packet to its last."),
            *(_CONVERTED if self.jungfrau.converts else ()),
        ):
            self._frame = self.series(name, units=units, description=about, timeline="frame").timeline
        self._declare_image()
        for name, (units, about) in _STATUS.items():
            self._status = self.series(name, units=units, description=about, timeline="status", keep=86400).timeline
        self.register_control("status", self.status)
        self.register_control("ledger", self.ledger)
        self.register_control("get_config", self.get_config)
        self.register_control("set_config", self.set_config, in_thread=True)
        for name, call in self._dark_calls().items():
            self.register_control(name, self._present_call(name, call), in_thread=True)
        self._image_due = 0.0
        self._last: tuple[float, int, int, int] | None = None
        if self.detector.model == "gigafrost":
            self.every(1.0, self._learn_packet_rows, in_thread=True)
        return deferToThread(self._begin).addCallback(lambda _: self.every(1.0, self._report))

    def _declare_image(self) -> None:
        if "image" in self.store.timelines:
            self.store.forget("image")
        self._image = self.series(
            "image",
            description=f"The newest image of {self.detector.title}, every {self.options.image_interval:g} s.",
            timeline="image",
            type="array",
            shape=self.detector.shape,
            dtype=self.jungfrau.dtype.str,
            max_samples=_IMAGES_KEPT,
            feed=False,  # an image may be larger than any message; who wants one asks, and gets it in chunks
        )

    def _dark_calls(self) -> dict[str, Callable[..., Any]]:
        return self.jungfrau.controls(self._under_way, self._describe_again)

    def _present_call(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a control call that reaches the detector as it is configured when it is called."""

        @wraps(call)
        def present(*args: Any, **kwargs: Any) -> Any:
            calls = self._dark_calls()
            if name not in calls:
                raise ConfigurationError(f"{self.detector.title} is not a JUNGFRAU: it has no {name}")
            return calls[name](*args, **kwargs)

        return present

    def _jungfrau_part(self, detector: DetectorOptions) -> JungfrauPart:
        assert self.state is not None
        return JungfrauPart(self.name, detector, self.options.conversion, self.site, self._poni(), self.state.path)

    def _find_detector(self) -> DetectorOptions:
        detector: DetectorOptions | None = self.options.detector or getattr(self.site, "detector", None)
        if detector is None:
            raise ConfigurationError(
                f"{self.name}: no detector is described", remedy="add `detector:` to the site file"
            )
        if len(self.options.udp) != detector.streams:
            raise ConfigurationError(
                f"nodes.{self.name}.udp: {detector.title} sends {detector.streams} streams, "
                f"{len(self.options.udp)} ports are listed",
                remedy="one port a stream; JUNGFRAU: one a module and interface, EIGER: four a module, "
                "GigaFRoST: eight",
            )
        if self.state is None:
            raise ConfigurationError(f"{self.name}: a receiver needs a state directory for its frame ring")
        return detector

    def _begin(self) -> None:
        """Open everything; nothing stays open when a part of it fails."""
        options = self.options
        self.jungfrau.prepare()
        self.jungfrau.keep()
        sockets = open_sockets(self._addresses, options.receive_buffer)
        self.ports = [one.getsockname()[1] for one in sockets]
        self._addresses = [(address, port) for (address, _), port in zip(self._addresses, self.ports, strict=True)]
        self.granted_buffer = min(granted_buffer(one) for one in sockets)
        self.warning = buffer_warning(sockets, options.receive_buffer)
        if self.warning:
            _log.warn("{warning}", warning=self.warning)
        try:
            self._open_ring()
            self._open_outputs()
            assert self._producer is not None
            self.receiver = Receiver(
                self.jungfrau.raw_detector,
                sockets,
                self._producer,
                ReceiverSettings(options.frame_timeout, options.overtaken_by, options.partial, options.image_id),
                on_frame=self._on_frame,
                recorder=self._recording,
                open_recording=self._open_recording,
            )
        except BaseException:
            for one in sockets:
                one.close()
            self._close_outputs()
            raise
        self.receiver.start()
        _log.info("receiving {title} on UDP {ports}", title=self.detector.title, ports=self.ports)

    @property
    def frames_address(self) -> str:
        """Where consumers on this machine find the frames."""
        assert self.state is not None
        return f"ring://{self.state.frames_socket(self.name)}"

    def _describe(self) -> Description:
        detector = self.detector
        meta = {**detector.to_meta(self._poni()), **self.jungfrau.meta(), CAN_RECORD: True}
        if self.warning:
            meta["warnings"] = {"buffers": self.warning}
        if detector != self._described:
            meta["detector"] = detector.model_dump(mode="json", exclude={"geometry", "mask"}, exclude_unset=True)
        return Description(
            source=self.name,
            kind="image",
            shape=detector.shape,
            dtype=self.jungfrau.dtype.str,
            packets_per_frame=detector.packets_per_frame,
            fill_value=self.jungfrau.fill,
            meta={key: value for key, value in meta.items() if value is not None},
        )

    def _describe_again(self) -> None:
        """Tell consumers of a pedestal that frames are converted with from now on."""
        if self._producer is not None and self.jungfrau.converts:
            self._producer.describe(self._describe())

    def _stop_receiving(self) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.stop()
            self.jungfrau.flush()
        if self._darks is not None:
            self._darks.close()
        self._close_outputs()

    def _under_way(self) -> str | None:
        """Return the acquisition under way."""
        return self.receiver.acquisition()["acquisition"] if self.receiver is not None else None

    def _poni(self) -> Geometry | None:
        """Return the geometry of the site's file, if it can be read; the integrator complains where it cannot."""
        if not isinstance(self.detector.geometry, str) or self.site is None:
            return None
        path = self.site.resolve_input(self.detector.geometry)
        try:
            return _geometry_of(path, self.detector.pixel_size)
        except (OSError, UnicodeDecodeError, SisockdaqError) as error:
            _log.warn("no geometry for the frames' description: {path}: {error}", path=str(path), error=error)
            return None

    def _open_ring(self) -> None:
        assert self.state is not None
        self.state.make()
        fewest = max(_FEWEST_SLOTS, self.options.overtaken_by + _SPARE_SLOTS)
        slots = self.options.ring_slots or _default_slots(self.detector, self.jungfrau.dtype.itemsize, fewest)
        ring = make_producer(self.frames_address, self._describe(), slots=slots, hang_after=self.options.hang_after)
        self._producer = self.jungfrau.wrap(ring, self.options.overtaken_by, self._show)

    def _open_outputs(self) -> None:
        stream2, record = self.options.stream2, self.options.record
        if stream2 is not None:
            consumer = make_consumer(self.frames_address, name=f"{self.name}-stream2", policy="lossless")
            self._stream2 = Stream2Output(consumer, stream2.bind, self._describe(), compression=stream2.compression)
        if record is not None:
            folder = self.site.resolve_output(record) if self.site is not None else record
            if self._changes:  # packets of another configuration are another recording
                folder = folder / f"change_{self._changes:03d}"
            self._recording = RecordingWriter(folder, self.ports)

    def _open_recording(self, arm: Arm) -> AcquisitionRecording | None:
        """Begin to record an acquisition's packets, where it asks for that; in the receiver's thread."""
        wish = RawWish.of_meta(arm.meta)
        if wish is None:
            return None
        if obstacle := user_obstacle(wish.user_id):
            raise StorageError(f"{self.name} cannot record: {obstacle}")
        form = BUNCH_PACKETS if self.options.image_id == "bunch_id" else SLS_PACKETS
        form = GIGAFROST_PACKETS if self.detector.model == "gigafrost" else form
        return AcquisitionRecording(wish, arm.acquisition, self.ports, form, writing_as(wish.user_id))

    def _close_outputs(self) -> None:
        recording, self._recording = self._recording, None
        stream2, self._stream2 = self._stream2, None
        producer, self._producer = self._producer, None
        if recording is not None:
            recording.close()
        if stream2 is not None:
            stream2.close()
        if producer is not None:
            producer.close()

    def teardown(self) -> Any:
        """Stop receiving; what is in hand is still published."""
        return deferToThread(self._end)

    def _end(self) -> None:
        with self._changing:
            self._stop_receiving()

    def _on_frame(self, header: FrameHeader, image: npt.NDArray[Any] | None) -> None:
        """Take a finished frame as it was received; in the receiver's thread."""
        if self._darks is not None:
            self._darks.offer(image, complete=header.complete)
        if self.jungfrau.producer is not None:
            self.jungfrau.producer.saw(header, image)
        else:
            self._show(header, image, None)

    def _show(self, header: FrameHeader, image: npt.NDArray[Any] | None, statistics: FrameStatistics | None) -> None:
        """Enter a frame into the live series; in the thread that publishes it."""
        converted = {}
        if self.jungfrau.converts:
            converted = dict.fromkeys(("pixels_without_value", "pixels_saturated"), float("nan"))
        if statistics is not None:
            converted = {"pixels_without_value": statistics.empty, "pixels_saturated": statistics.saturated}
        self._frame.append(
            header.time,
            {
                **converted,
                "frame_number": header.number,
                "sum": header.total,
                "maximum": header.maximum,
                "packets_received": header.packets_received,
                "packets_lost": header.packets_expected - header.packets_received,
                "assembly_time": header.last - header.time,
            },
        )
        if image is not None and header.time >= self._image_due:
            self._image_due = header.time + self.options.image_interval
            self._image.append(header.time, np.array(image))

    def _report(self) -> None:
        """Append rates and counts; once a second."""
        receiver, producer = self.receiver, self._producer
        if self._broken:
            raise SisockdaqError(f"{self.name} no longer receives: {self._broken}", remedy="restart the node")
        if receiver is None or producer is None:
            return
        if receiver.error is not None:
            raise SisockdaqError(f"{self.name} no longer receives: {receiver.error}", remedy="restart the node")
        now, counts, ring = time.time(), receiver.counters(), producer.status()
        frames = counts["frames"]
        seen = (now, sum(frames.values()) - frames["partial"], counts["packets"], counts["bytes"])
        before, self._last = self._last or seen, seen
        elapsed = now - before[0]
        rates = [(new - old) / elapsed if elapsed > 0 else 0.0 for new, old in zip(seen[1:], before[1:], strict=True)]
        self._status.append(
            now,
            {
                **dict(zip(("frame_rate", "packet_rate", "data_rate"), rates, strict=True)),
                "ring_use": 100.0 * (1.0 - ring["slots_free"] / ring["slots"]),
                "packets_lost_total": counts["lost"],
                "frames_partial": frames["partial"],
                "frames_ring_full": frames["ring_full"],
                "frames_policy": frames["policy"],
                "packets_late": counts["late"],
                "packets_duplicate": counts["duplicate"],
                "packets_invalid": sum(counts["invalid"].values()),
                "packets_dropped_by_kernel": counts["kernel_drops"],
            },
        )

    def status(self) -> dict[str, Any]:
        """Return what the receiver is, what it does, and all its counters (role control)."""
        receiver, producer = self.receiver, self._producer  # a new configuration may take them away meanwhile
        if receiver is None or producer is None:
            state = "FAILED" if self._broken else "STARTING"
            return {"state": state, "detector": self.detector.title, "message": self._broken}
        acquisition = receiver.acquisition()
        failed = receiver.error
        return {
            "state": "FAILED" if failed else "RECEIVING" if acquisition["acquisition"] else "READY",
            "message": str(failed or self.warning or self.jungfrau.warning or ""),
            "detector": self.detector.title,
            "ports": self.ports,
            "receive_buffer": self.granted_buffer,
            "trains": receiver.trains,
            "acquisition": acquisition,
            "counters": receiver.counters(),
            "ring": producer.status(),
            "stream2": dict(self._stream2.status()) if self._stream2 is not None else None,
            "recorded": self._recording.datagrams if self._recording is not None else None,
        }

    def ledger(self) -> dict[str, Any]:
        """Return the receiver's part of the ledger of the acquisition that ended last; {} before (role control)."""
        return dict(self.receiver.last_counts) if self.receiver is not None else {}


def _default_slots(detector: DetectorOptions, item: int, fewest: int) -> int:
    frame = detector.shape[0] * detector.shape[1] * item
    room = min(_RING_BYTES, int(_RING_SHARE * psutil.virtual_memory().available))
    return max(fewest, min(_MOST_SLOTS, room // frame))


def _geometry_of(path: Path, pixel_size: float) -> Geometry:
    """Read a PONI without loading pyFAI, or a calibration of another kind; `pixel_size` [m] for one that says none."""
    from sisockdaq.calibration.readers import is_other_kind, read_with_pixels

    if not is_other_kind(path):
        return Geometry.of_poni(path.read_text())
    found = read_with_pixels(path, pixel_size)
    if found.wavelength is None:
        raise GeometryError(f"{path}: has no wavelength", remedy="add it to the file, or make a PONI of it")
    return Geometry(**{name: getattr(found, name) for name in Geometry.model_fields})

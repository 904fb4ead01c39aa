"""What every node over a feed serves: the frames' numbers, the newest image, rates and losses.

The images themselves go through the frame ring; see `pump`. A node names its feed and its settings:

    class StreamReceiver(SourceNode):
        def make_feed(self) -> Feed: ...
        def pump_settings(self) -> PumpSettings: ...
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from pydantic import Field, field_validator
from twisted.logger import Logger

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.frames import Description, FrameHeader, Producer, make_producer
from sisockdaq.frames.tables import keep_tables
from sisockdaq.sources.events import Feed, SampleBlock
from sisockdaq.sources.pump import FramePump, PumpSettings

__all__ = ["SourceNode"]

_log = Logger("sisockdaq.sources")

_RING_SHARE = 0.1
"""Share of the free memory that the ring takes when the site does not say."""

_RING_BYTES = 2**29
"""Most memory that the ring takes by itself [bytes]."""

_FEWEST_SLOTS, _MOST_SLOTS = 8, 256

_IMAGES_KEPT = 4
"""Images kept for `get_data`: a look at the last seconds. All images are in the files."""

_MOST_CHANNELS = 1000
"""Channels beside the images that become fields."""

_STATUS = {
    "frame_rate": ("Hz", "Images that were published per second."),
    "data_rate": ("B/s", "Bytes of pixels that were published per second."),
    "ring_use": ("%", "Share of the frame ring that consumers hold."),
    "frames_ring_full": (None, "Images dropped because the ring was full."),
    "frames_damaged": (None, "Images dropped because they could not be unpacked."),
    "frames_wrong_shape": (None, "Images dropped because they were not like the others of their acquisition."),
    "frames_not_received": (None, "Images of acquisitions that did not come."),
    "frames_duplicate": (None, "Images that had come before."),
    "refused": (None, "Messages or files that could not be used; `status` has the kinds."),
    "samples_not_kept": (None, "Values of other channels that could not be kept."),
}
"""Number fields of the timeline "status": name → (units, description). Counts are since the start."""


class SourceNode(DataNodeServer):
    """A source of images that come whole."""

    class Options(DataNodeServer.Options):
        """The frame ring, and what is shown live."""

        shape: tuple[int, int] | None = Field(
            None, description="Rows and columns of the images. Default: the site's detector's, or those that come."
        )
        dtype: str | None = Field(
            None, description="Type of the pixels, for example uint16; goes with shape. Default: as shape's."
        )
        series_as_acquisitions: bool = Field(
            False, description="Begin an acquisition of its own with each series, when none is under way."
        )
        ring_slots: int | None = Field(
            None, ge=4, le=65536, description="Frames in shared memory. Default: from the memory there is, 8 to 256."
        )
        hang_after: float = Field(
            10.0,
            gt=0,
            description="How long a consumer that holds frames may make no progress before a full ring throws it out "
            "[s].",
        )
        image_interval: float = Field(
            1.0, ge=0.02, le=3600, description="Shortest time between two images that are shown live [s]."
        )

        @field_validator("dtype")
        @classmethod
        def _known_dtype(cls, value: str | None) -> str | None:
            if value is None:
                return None
            try:
                kind = np.dtype(value)
            except TypeError:
                kind = np.dtype("O")
            if kind.kind not in "uif":
                raise ValueError(f'"{value}" is not a type of pixels (for example uint16, int32, float32)')
            return kind.newbyteorder("=").str

    pump: FramePump | None = None

    # What a node says.

    def make_feed(self) -> Feed:
        """Return the feed, not yet open."""
        raise NotImplementedError

    def pump_settings(self) -> PumpSettings:
        """Return how images are numbered; `known` completes it."""
        return self.known()

    # What it gets.

    def known(self, **settings: Any) -> PumpSettings:
        """Return settings with what options and site say of the images."""
        options, detector = self.options, getattr(self.site, "detector", None)
        if (options.shape is None) != (options.dtype is None):
            raise ConfigurationError(f"{self.name}: shape and dtype go together", remedy="set both, or none")
        shape, dtype, meta = options.shape, options.dtype, {}
        if detector is not None:
            meta = detector.to_meta()
            meta.pop("packets_per_frame", None)
            shape, dtype = (shape, dtype) if shape else (detector.shape, detector.dtype.str)
        return PumpSettings(
            shape=shape,
            dtype=np.dtype(dtype) if dtype else None,
            follow_series=options.series_as_acquisitions,
            meta=meta,
            keep_tables=self._keep_tables if self.state is not None else None,
            **settings,
        )

    @property
    def frames_address(self) -> str:
        """Where consumers on this machine find the frames."""
        if self.state is None:
            raise ConfigurationError(f"{self.name}: a source of frames needs a state directory for its frame ring")
        return f"ring://{self.state.frames_socket(self.name)}"

    def setup(self) -> Any:
        """Declare the fields; open feed and ring in a thread."""
        for name, units, about in (
            ("frame_number", None, "Number of the frame, as its sender counts."),
            ("sum", None, "Sum over the pixels; the fill value is left out."),
            ("maximum", None, "Largest pixel; the fill value is left out."),
            ("delay", "s", "From the frame's end to its publication."),
        ):
            self._frame = self.series(name, units=units, description=about, timeline="frame").timeline
        for name, (units, about) in _STATUS.items():
            self._status = self.series(name, units=units, description=about, timeline="status", keep=86400).timeline
        self.register_control("status", self.status)
        self.register_control("ledger", self.ledger)
        self._image: Any = None
        self._image_kind: tuple[tuple[int, ...], str] | None = None
        self._channels: dict[str, Any] = {}
        self._not_kept = 0
        self._image_due = 0.0
        self._last: tuple[float, int, int] | None = None
        settings = self.pump_settings()
        self.frames_address  # noqa: B018 - says what is missing before anything is opened
        self.pump = FramePump(
            str(self.name), self.make_feed(), self._make_ring, settings,
            on_frame=self._show, on_samples=self._keep_samples,
        )  # fmt: skip
        return self.in_thread(self.pump.start).addCallback(lambda _: self.every(1.0, self._report))

    def teardown(self) -> Any:
        """End the acquisition, feed and ring."""
        return self.in_thread(self.pump.stop) if self.pump is not None else None

    def status(self) -> dict[str, Any]:
        """Return what the source is, what it does, and all its counters (role control)."""
        pump = self.pump
        if pump is None:
            return {"state": "STARTING"}
        acquisition = pump.acquisition()
        description = pump.description
        return {
            "state": "FAILED" if pump.error else "RECEIVING" if acquisition["acquisition"] else "READY",
            "message": str(pump.error or ""),
            "shape": list(description.shape) if description else None,
            "dtype": description.dtype if description else None,
            "series": pump.series,
            "acquisition": acquisition,
            "counters": {**pump.counters(), "samples_not_kept": self._not_kept},
            "ring": pump.ring_status(),
        }

    def ledger(self) -> dict[str, Any]:
        """Return the source's part of the ledger of the acquisition that ended last; {} before (role control)."""
        return dict(self.pump.last_counts) if self.pump is not None else {}

    def _keep_tables(self, tables: Mapping[str, npt.NDArray[Any]]) -> str:
        assert self.state is not None
        return keep_tables(self.state.path, str(self.name), tables)

    def _make_ring(self, description: Description) -> Producer:
        assert self.state is not None
        self.state.make()
        size = math.prod(description.shape) * np.dtype(description.dtype).itemsize
        room = min(_RING_BYTES, int(_RING_SHARE * psutil.virtual_memory().available))
        slots = self.options.ring_slots or max(_FEWEST_SLOTS, min(_MOST_SLOTS, room // size))
        return make_producer(self.frames_address, description, slots=slots, hang_after=self.options.hang_after)

    def _show(self, header: FrameHeader, pixels: npt.NDArray[Any]) -> None:
        """Enter a frame into the live series; in the pump's thread."""
        self._frame.append(
            header.time,
            {
                "frame_number": header.number,
                "sum": header.total,
                "maximum": header.maximum,
                "delay": time.time() - header.last,
            },
        )
        if header.time >= self._image_due:
            self._image_due = header.time + self.options.image_interval
            self._image_series(pixels).append(header.time, np.array(pixels))

    def _image_series(self, pixels: npt.NDArray[Any]) -> Any:
        """Return the series of the newest image; declared anew when images of another kind come."""
        kind = pixels.shape, pixels.dtype.str
        if kind != self._image_kind:
            if self._image_kind is not None:
                self.store.forget("image")
            self._image_kind = kind
            self._image = self.series(
                "image",
                description=f"The newest image of {pixels.shape[1]}×{pixels.shape[0]} pixels, every "
                f"{self.options.image_interval:g} s.",
                timeline="image",
                type="array",
                shape=pixels.shape,
                dtype=pixels.dtype.str,
                max_samples=_IMAGES_KEPT,
                feed=False,  # an image may be larger than any message; who wants one asks, and gets it in chunks
            )
        return self._image

    def _keep_samples(self, block: SampleBlock) -> None:
        """Append values of other channels; a channel becomes a field when it first comes. In the pump's thread."""
        for name, value in block.values.items():
            try:
                self._channel(name, value).append(block.time, value)
            except (ValueError, TypeError):
                self._not_kept += 1

    def _channel(self, name: str, value: Any) -> Any:
        made = self._channels.get(name)
        if made is None:
            if len(self._channels) >= _MOST_CHANNELS:
                raise ValueError("too many channels")
            kind: Mapping[str, Any] = {"type": "number"}
            if isinstance(value, str):
                kind = {"type": "string"}
            elif isinstance(value, bool | np.bool_):
                kind = {"type": "bool"}
            elif isinstance(value, np.ndarray):
                kind = {"type": "array", "shape": value.shape, "dtype": value.dtype.str}
            field = re.sub(r"[^\w.:-]", "_", name)
            made = self.series(field, timeline=field, description=f"Channel {name}.", **kind)
            self._channels[name] = made
        return made

    def _report(self) -> None:
        """Append rates and counts; once a second."""
        pump = self.pump
        if pump is None:
            return
        if pump.error is not None:
            raise SisockdaqError(f"{self.name} no longer receives: {pump.error}", remedy="restart the node")
        now, counts, ring = time.time(), pump.counters(), pump.ring_status()
        seen = (now, counts["frames"]["published"], counts["bytes"])
        before, self._last = self._last or seen, seen
        elapsed = now - before[0]
        rates = [(new - old) / elapsed if elapsed > 0 else 0.0 for new, old in zip(seen[1:], before[1:], strict=True)]
        self._status.append(
            now,
            {
                "frame_rate": rates[0],
                "data_rate": rates[1],
                "ring_use": 100.0 * (1.0 - ring["slots_free"] / ring["slots"]) if ring else 0.0,
                "frames_ring_full": counts["frames"]["ring_full"],
                "frames_damaged": counts["frames"]["damaged"],
                "frames_wrong_shape": counts["frames"]["wrong_shape"],
                "frames_not_received": counts["missing"],
                "frames_duplicate": counts["duplicate"],
                "refused": sum(counts["refused"].values()),
                "samples_not_kept": self._not_kept,
            },
        )

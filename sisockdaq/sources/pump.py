"""From a feed to the frame ring, in one thread: every image placed, counted and published, none kept waiting for.

The ring is made when the shape of the images is known: announced by a series, told by the site, or seen on the first
image. When it changes between acquisitions, the ring is made anew and consumers attach again; within one, an image
of another shape is dropped and counted. A full ring loses images here, where they are counted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import AcquisitionRefused, FrameSourceError, SisockdaqError
from sisockdaq.frames.bus import Producer, Request
from sisockdaq.frames.messages import Arm, Description, End, FrameHeader, Start, Stop
from sisockdaq.frames.tables import KEY
from sisockdaq.sources._measure import measure, warm_up
from sisockdaq.sources.books import Books, Outcome
from sisockdaq.sources.events import Event, Feed, Image, SampleBlock, SeriesEnd, SeriesStart

__all__ = ["FramePump", "PumpSettings", "default_fill"]

_log = logging.getLogger(__name__)

_WAIT = 0.1
"""Longest wait for a feed [s]; a request waits as long at most."""

_ANSWER_DEADLINE = 5.0
"""Longest wait of a request for the pump's thread [s]."""

_TIME_STEP = 1e-6
"""Least time between two frames [s]; some four steps of a float64 that holds UNIX seconds."""

_CLOCK_STEP = 1.0
"""A frame's time that falls back by more than this means that the sender's clock was set [s]."""


@dataclass(frozen=True)
class PumpSettings:
    """How a pump works.

    Attributes
    ----------
    consecutive, ordered : bool
        As of `Books`.
    follow_series : bool
        Whether a series begins an acquisition of its own when none is under way.
    shape, dtype
        Of the images, where known before the first.
    meta : dict
        What is known of the detector before a series says more.
    keep_tables : callable, optional
        Keeps what a series says of every pixel (`frames.tables`); returns the file's name for the description.
    """

    consecutive: bool = True
    ordered: bool = True
    follow_series: bool = False
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    meta: dict[str, Any] | None = None
    keep_tables: Callable[[Mapping[str, npt.NDArray[Any]]], str] | None = None


def default_fill(dtype: np.dtype[Any]) -> float:
    """Return the value that marks a pixel without meaning: the largest unsigned, the smallest signed, or NaN."""
    if dtype.kind == "f":
        return float("nan")
    return int(np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min)


def _fill(dtype: np.dtype[Any], announced: Any) -> float:
    """Return the fill value: what the sender announced where pixels of this type can have it, else the default."""
    if dtype.kind in "ui" and isinstance(announced, int):
        limits = np.iinfo(dtype)
        if limits.min <= announced <= limits.max:
            return announced
    return default_fill(dtype)


class FramePump:
    """Take images from a feed and publish them.

    Parameters
    ----------
    name : str
        Of the source, for its consumers.
    feed : Feed
    make_ring : callable
        Returns the producer for a `Description`.
    settings : PumpSettings
    on_frame : callable, optional
        ``on_frame(header, pixels)`` for each frame just before it is published, in the pump's thread; the pixels are
        not to be kept.
    on_samples : callable, optional
        Called with each `SampleBlock`, in the pump's thread.
    """

    def __init__(
        self,
        name: str,
        feed: Feed,
        make_ring: Callable[[Description], Producer],
        settings: PumpSettings | None = None,
        *,
        on_frame: Callable[[FrameHeader, npt.NDArray[Any]], None] | None = None,
        on_samples: Callable[[SampleBlock], None] | None = None,
    ) -> None:
        self.name, self.feed = name, feed
        self.settings = settings or PumpSettings()
        self.error: BaseException | None = None
        """What ended the thread, when it was not `stop`."""
        self.last_counts: dict[str, Any] = {}
        """The source's part of the ledger of the acquisition that ended last, with its name and reason."""
        self.description: Description | None = None
        self.series: str | None = None
        """The series under way."""
        self._make_ring, self._on_frame, self._on_samples = make_ring, on_frame, on_samples
        self._producer: Producer | None = None
        self._books = Books(consecutive=self.settings.consecutive, ordered=self.settings.ordered)
        self._meta: dict[str, Any] = dict(self.settings.meta or {})
        self._frames = dict.fromkeys(("published", "ring_full", "damaged", "wrong_shape"), 0)
        self._bytes = 0
        self._last_time = 0.0
        self._requests: queue.SimpleQueue[tuple[Request, queue.SimpleQueue[SisockdaqError | None] | None]]
        self._requests = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pump-{name}", daemon=True)

    # Any thread.

    def start(self) -> None:
        """Open the feed, and the ring where the images' shape is known; then begin.

        Raises
        ------
        SisockdaqError
            When the feed or the ring cannot be opened.
        """
        self.feed.open()
        try:
            if self.settings.shape is not None and self.settings.dtype is not None:
                self._open_ring(self.settings.shape, self.settings.dtype)
        except BaseException:
            self.feed.close()
            raise
        self._thread.start()

    def stop(self) -> None:
        """End the acquisition, feed and ring."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_ANSWER_DEADLINE)
        if self._thread.is_alive():  # it must keep what it still uses
            _log.error("the source %s did not end within %g s", self.name, _ANSWER_DEADLINE)

    def arm(self, arm: Arm) -> None:
        """Begin an acquisition with the next image.

        Raises
        ------
        AcquisitionRefused
            When one is under way, or the source does not run.
        """
        self._ask(arm)

    def stop_acquisition(self, acquisition: str, reason: Literal["stopped", "failed"] = "stopped") -> None:
        """End an acquisition now; nothing happens when it is not under way."""
        self._ask(Stop(acquisition, reason))

    def counters(self) -> dict[str, Any]:
        """Return all counts since the start.

        ``frames`` (published, ring_full, damaged, wrong_shape), ``bytes`` (of pixels), ``missing`` (images of
        acquisitions that did not come), ``duplicate``, ``refused`` (what the feed could not use, by kind).
        """
        return {
            "frames": dict(self._frames),
            "bytes": self._bytes,
            "missing": self._books.missing,
            "duplicate": self._books.duplicates,
            "refused": self.feed.counters(),
        }

    def acquisition(self) -> dict[str, Any]:
        """Return ``{"acquisition", "frames", "wanted"}`` of the acquisition under way; the name is None outside one."""
        handled, wanted = self._books.progress
        return {"acquisition": self._books.acquisition, "frames": handled, "wanted": wanted}

    def ring_status(self) -> dict[str, Any] | None:
        """Return the ring's status; None before there is one."""
        return self._producer.status() if self._producer is not None else None

    def _ask(self, request: Request) -> None:
        if not self._thread.is_alive():
            raise AcquisitionRefused(f"{self.name} does not run", remedy="see its log for the reason")
        answer: queue.SimpleQueue[SisockdaqError | None] = queue.SimpleQueue()
        self._requests.put((request, answer))
        try:
            refusal = answer.get(timeout=_ANSWER_DEADLINE)
        except queue.Empty:
            raise AcquisitionRefused(f"{self.name} did not answer within {_ANSWER_DEADLINE:g} s") from None
        if refusal is not None:
            raise refusal

    # The pump's own thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._hear()
                for event in self.feed.next(_WAIT):
                    self._handle(event)
        except BaseException as error:  # edge of the thread: whatever ended it is kept for the node, and logged
            self.error = error
            _log.exception("the source %s ended", self.name)
        finally:
            self._finish()

    def _finish(self) -> None:
        try:
            if name := self._books.acquisition:
                self._mark(self._books.stop(name, "failed" if self.error else "stopped", self.feed.counters()))
            self.feed.close()
            if self._producer is not None:
                self._producer.close()
        except Exception:  # edge of the thread: the end must be reached whatever ring and feed say
            _log.exception("the source %s could not close its books", self.name)

    def _hear(self) -> None:
        """Obey what was asked."""
        while True:
            try:
                request, answer = self._requests.get_nowait()
            except queue.Empty:
                return
            refusal = self._obey(request)
            if answer is not None:
                answer.put(refusal)
            elif refusal is not None:
                _log.warning("%s", refusal)

    def _obey(self, request: Request) -> SisockdaqError | None:
        try:
            if isinstance(request, Arm):
                if self._producer is None:
                    raise AcquisitionRefused(
                        f'{self.name} cannot begin "{request.acquisition}": the size of its images is not known yet',
                        remedy="send an image first, or set shape and dtype",
                    )
                self._mark(self._books.arm(request, self.feed.counters()))
            elif isinstance(request, Stop):
                self._mark(self._books.stop(request.acquisition, request.reason, self.feed.counters()))
        except SisockdaqError as refusal:
            return refusal
        return None

    def _handle(self, event: Event) -> None:
        match event:
            case SeriesStart():
                self._begin_series(event)
            case Image():
                self._image(event)
            case SampleBlock():
                if self._on_samples is not None:
                    self._on_samples(event)
            case SeriesEnd(why):
                self.series = None
                self._mark(self._books.end_series(why, self.feed.counters()))

    def _begin_series(self, event: SeriesStart) -> None:
        if self.series is not None:
            self._mark(self._books.end_series("a new series began", self.feed.counters()))
        self.series = event.name
        self._meta = {**(self.settings.meta or {}), **event.meta}
        self._keep_tables(event)
        if event.shape is not None and event.dtype is not None:
            self._fit(event.shape, event.dtype)
        self._describe()
        self._books.begin_series(event.first, event.frames)
        if self.settings.follow_series and self._books.acquisition is None and self._producer is not None:
            self._mark(self._books.arm(Arm(event.name, event.frames, dict(event.meta)), self.feed.counters()))

    def _keep_tables(self, event: SeriesStart) -> None:
        """Keep mask and flat field for who makes files; without them the images are still worth taking."""
        self._meta.pop(KEY, None)  # only we name files
        if not event.tables or self.settings.keep_tables is None:
            return
        try:
            self._meta[KEY] = self.settings.keep_tables(event.tables)
        except SisockdaqError as error:
            _log.warning("%s: %s", self.name, error)

    def _describe(self) -> None:
        """Tell consumers what a series says of the detector."""
        if self._producer is None or self.description is None or self.description.meta == self._meta:
            return
        old = self.description
        self.description = Description(old.source, old.kind, old.shape, old.dtype, 0, old.fill_value, dict(self._meta))
        self._producer.describe(self.description)

    def _fit(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
        """See that the ring has images of this kind; False when it cannot change now."""
        have = self.description
        if have is not None and (have.shape, np.dtype(have.dtype)) == (shape, dtype):
            return True
        if self._books.acquisition is not None:
            return False
        if self._producer is not None:
            _log.info("%s: images are now %s %s", self.name, dtype, shape)
            self._producer.close()
            self._producer = self.description = None
        self._open_ring(shape, dtype)
        return True

    def _open_ring(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        warm_up(dtype)
        fill = _fill(dtype, self._meta.get("error_value"))
        description = Description(self.name, "image", shape, dtype.str, 0, fill, dict(self._meta))
        self._producer = self._make_ring(description)
        self._producer.on_request(lambda _consumer, request: self._requests.put((request, None)))
        self.description = description

    def _image(self, image: Image) -> None:
        counters = self.feed.counters()
        fits = self._fit(image.shape, image.dtype)
        marks, index = self._books.place(image.number, counters)
        self._mark(marks)
        if index is None:
            return
        outcome: Outcome = self._publish(image, index) if fits else "wrong_shape"
        self._frames[outcome] += 1
        self._mark(self._books.count(index, outcome, counters))

    def _publish(self, image: Image, index: int) -> Outcome:
        """Put an image into a slot and hand it out; say what became of it."""
        producer, description = self._producer, self.description
        assert producer is not None
        assert description is not None
        slot = producer.acquire()
        if slot is None:
            return "ring_full"
        pixels = producer.pixels[slot]
        try:
            image.read(pixels)
        except FrameSourceError as error:
            producer.discard(slot)
            _log.warning("%s: image %d: %s", self.name, image.number, error)
            return "damaged"
        total, highest = measure(pixels, description.fill_value)
        first = self._own_time(image.time)
        header = FrameHeader(
            number=image.number,
            time=first,
            last=max(first, image.last),
            index=index,
            total=total,
            maximum=highest,
            timestamp=image.timestamp,
        )
        self._bytes += pixels.nbytes
        self._show(header, pixels)
        producer.publish(slot, header)
        return "published"

    def _show(self, header: FrameHeader, pixels: npt.NDArray[Any]) -> None:
        if self._on_frame is None:
            return
        try:
            self._on_frame(header, pixels)
        except Exception:  # whatever a view of the frames does wrong must not cost a frame
            self._on_frame = None
            _log.exception("frames of %s are no longer shown", self.name)

    def _own_time(self, first: float) -> float:
        """Return a frame's time, later than that of the frame before: series and files are joined by these times."""
        if 0.0 <= self._last_time - first < _CLOCK_STEP:
            first = self._last_time + _TIME_STEP
        self._last_time = first
        return first

    def _mark(self, marks: Sequence[Start | End]) -> None:
        for mark in marks:
            assert self._producer is not None
            if isinstance(mark, Start):
                self._producer.start(mark)
            else:
                self.last_counts = {"acquisition": mark.acquisition, "reason": mark.reason, **mark.counts}
                self._producer.end(mark)

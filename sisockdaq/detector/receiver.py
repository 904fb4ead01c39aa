"""The receiver: from UDP packets to frames on the frame plane, with every packet accounted for.

`Receiver` runs one thread. The compiled loop of `kernel` fills slots of the producer's ring; this module gives it
slots, publishes what is finished, keeps the books (`account`) and obeys requests. It knows no network but its sockets.

Policies: a full ring loses whole frames, here, where they are counted; no socket is ever kept waiting for a consumer.
Frames are published in the order of their numbers.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.detector import _tables as tables
from sisockdaq.detector import gigafrost_kernel, kernel
from sisockdaq.detector._assembly import close_all
from sisockdaq.detector.account import Account, Outcome
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.layout import Layout
from sisockdaq.detector.recorders import AcquisitionRecorder, Recorder
from sisockdaq.detector.sockets import dropped_by_kernel, take_trains
from sisockdaq.errors import AcquisitionRefused, SisockdaqError
from sisockdaq.frames.bus import Producer, Request
from sisockdaq.frames.messages import Arm, End, FrameHeader, Start, Stop

__all__ = ["Receiver", "ReceiverSettings", "flat_pixels"]

log = logging.getLogger(__name__)

_WAIT_MS = 100
"""Longest sleep of the loop [ms]; requests wake it, so this only bounds how late a frame's time limit is noticed."""

_SLOTS_IN_HAND = 2
"""Slots taken from the ring ahead of need, so that a new frame does not have to wait for Python."""

_TIME_STEP = 1e-6
"""Least time between two frames [s]; some four steps of a float64 that holds UNIX seconds."""

_CLOCK_STEP = 1.0
"""A frame's time that falls back by more than this means that the clock was set [s]."""

_CATCH_UP = 0.5
"""Longest time that older packets are taken for before an acquisition begins [s]; a detector may never pause."""

_ANSWER_DEADLINE = 5.0
"""Longest wait of a request for the receiver's thread [s]."""


@dataclass(frozen=True)
class ReceiverSettings:
    """How frames are put together.

    Attributes
    ----------
    frame_timeout : float
        Time after a frame's first packet at which it is closed, with or without the rest [s].
    overtaken_by : int
        A frame is closed when one this much newer begins.
    partial : str
        What becomes of frames with lost packets: "deliver" or "drop".
    image_id : str
        What numbers the frames: "frame_number" or "bunch_id".
    """

    frame_timeout: float = 0.5
    overtaken_by: int = 4
    partial: Literal["deliver", "drop"] = "deliver"
    image_id: Literal["frame_number", "bunch_id"] = "frame_number"


def flat_pixels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the memory of all slots as one row of pixels; rooms between slots are included."""
    item = pixels.dtype.itemsize
    if pixels[0].flags["C_CONTIGUOUS"] is False or pixels.strides[0] % item:
        raise ValueError("slots must be contiguous images at multiples of a pixel")
    size = pixels.strides[0] * (len(pixels) - 1) + pixels[0].nbytes
    memory = (ctypes.c_uint8 * size).from_address(pixels.ctypes.data)
    return np.frombuffer(memory, pixels.dtype)


class Receiver:
    """Receive frames of one detector.

    Parameters
    ----------
    options : DetectorOptions
    sockets : sequence of socket
        Bound and non-blocking, one a stream, in the streams' order; closed by `stop`.
    producer : Producer
        Its slots have the detector's shape and dtype. Not closed here.
    settings : ReceiverSettings
    on_frame : callable, optional
        ``on_frame(header, image)`` for each frame just before it is published, in the receiver's thread; the image is
        None where there was no slot, and not to be kept.
    recorder : Recorder, optional
        Gets every datagram; costs one more copy of each.
    open_recording : callable, optional
        Makes the recorder of an acquisition that is being armed; None where it wants none.

    Raises
    ------
    ValueError
        When sockets or producer do not fit the detector.
    """

    def __init__(
        self,
        options: DetectorOptions,
        sockets: Sequence[socket.socket],
        producer: Producer,
        settings: ReceiverSettings | None = None,
        *,
        on_frame: Callable[[FrameHeader, npt.NDArray[Any] | None], None] | None = None,
        recorder: Recorder | None = None,
        open_recording: Callable[[Arm], AcquisitionRecorder | None] | None = None,
    ) -> None:
        if len(sockets) != options.streams:
            raise ValueError(f"{options.title} has {options.streams} streams; {len(sockets)} sockets were given")
        if producer.pixels.shape[1:] != options.shape or producer.pixels.dtype != options.dtype:
            raise ValueError(f"the frame ring has other images than {options.title}")
        self.options = options
        self.settings = settings or ReceiverSettings()
        self.error: BaseException | None = None
        """What ended the thread, when it was not `stop`."""
        self.last_counts: dict[str, Any] = {}
        """The source's part of the ledger of the acquisition that ended last, with its name and reason."""
        self._sockets = list(sockets)
        self._producer = producer
        self._on_frame = on_frame
        self._recorder = recorder
        self._open_recording = open_recording or (lambda arm: None)
        self._recording: AcquisitionRecorder | None = None
        self._requests: queue.SimpleQueue[tuple[Request, queue.SimpleQueue[SisockdaqError | None] | None]]
        self._requests = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._frames = dict.fromkeys(("published", "partial", "ring_full", "policy"), 0)
        self._lost = 0
        self._bell_lock = threading.Lock()
        self._packets = options.packets_per_frame
        self._account = Account(self._packets, consecutive=self.settings.image_id == "frame_number")
        self._last_time = 0.0
        self._prepare()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        producer.on_request(lambda _consumer, request: self.request(request))

    def _prepare(self) -> None:
        """Make the kernel's tables and touch all memory, so that nothing is left to do when packets come."""
        layout = Layout.of(self.options)
        descriptors = [one.fileno() for one in self._sockets]
        self.trains = take_trains(self._sockets, self.options)
        self._state = tables.make_state(layout, self.settings.overtaken_by, descriptors, self._wake, trains=self.trains)
        self._record_or_not()
        self._plan = tables.make_plan(
            layout,
            self._state,
            self._producer.pixels,
            overtaken_by=self.settings.overtaken_by,
            timeout=self.settings.frame_timeout,
            by_bunch=self.settings.image_id == "bunch_id",
            trains=self.trains,
        )
        self._producer.pixels[...] = self.options.gap_value
        self._memory = tables.memory_of(flat_pixels(self._producer.pixels))
        loop = gigafrost_kernel if self._is_gigafrost else kernel
        self._receive = loop.receive
        loop.warm_up()

    @property
    def _is_gigafrost(self) -> bool:
        return self.options.model == "gigafrost"

    # The outer face: any thread.

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """End: publish what is there, end the acquisition, close the sockets."""
        self._stopping.set()
        self._ring_bell()
        if self._thread.ident is not None:
            self._thread.join(_ANSWER_DEADLINE)
        if self._thread.is_alive():  # it must keep what it still uses
            log.error("the receiver of %s did not end within %g s", self.options.title, _ANSWER_DEADLINE)
            return
        with self._bell_lock:
            if self._wake >= 0:
                os.close(self._wake)
            self._wake = -1
        for one in self._sockets:
            one.close()

    def request(self, request: Request) -> None:
        """Pass on an `Arm` or `Stop` without waiting; a refusal is logged."""
        self._requests.put((request, None))
        self._ring_bell()

    def arm(self, arm: Arm) -> None:
        """Begin an acquisition with the next new frame.

        Raises
        ------
        AcquisitionRefused
            When one is under way, or the receiver does not run.
        """
        self._ask(arm)

    def stop_acquisition(self, acquisition: str, reason: Literal["stopped", "failed"] = "stopped") -> None:
        """End an acquisition now; nothing happens when it is not under way."""
        self._ask(Stop(acquisition, reason))

    def counters(self) -> dict[str, Any]:
        """Return all counters since the start.

        ``packets`` (received), ``lost`` (of frames that were closed, and in an acquisition of frames that never came),
        ``bytes``, ``late``, ``duplicate``, ``invalid`` (by kind), ``moved`` (copied because
        they were predicted elsewhere), ``kernel_drops`` (full receive buffers), ``frames`` (published, partial,
        ring_full, policy), ``open`` (frames being assembled).
        """
        values = dict(zip(tables.COUNTERS, self._state.counters.tolist(), strict=True))
        invalid = [kind for kind in tables.COUNTERS[tables.INVALID] if kind != "not_stored" or self._is_gigafrost]
        return {
            "packets": values["received"],
            "lost": self._lost + self._account.missing * self.options.packets_per_frame,
            "bytes": values["bytes"],
            "late": values["late"],
            "duplicate": values["duplicate"],
            "invalid": {kind: values[kind] for kind in invalid},
            "moved": values["moved"],
            "kernel_drops": dropped_by_kernel(self._sockets),
            "frames": dict(self._frames),
            "open": int(self._state.scalars[tables.OPEN_COUNT]),
        }

    @property
    def other_packet_rows(self) -> int | None:
        """Rows in a full packet that a GigaFRoST sends, where most do not fit the description; else None."""
        rows = gigafrost_kernel.rows_seen(self._state) if self._is_gigafrost else None
        counts = self._state.counters
        misfits = counts[tables.BAD_SIZE] > counts[tables.PACKETS]
        return rows if misfits and rows != self.options.rows_per_packet else None

    def acquisition(self) -> dict[str, Any]:
        """Return ``{"acquisition", "frames", "wanted"}`` of the acquisition under way; the name is None outside one."""
        handled, wanted = self._account.progress
        return {"acquisition": self._account.acquisition, "frames": handled, "wanted": wanted}

    def _ask(self, request: Request) -> None:
        if not self._thread.is_alive():
            raise AcquisitionRefused("the receiver does not run", remedy="see its log for the reason")
        answer: queue.SimpleQueue[SisockdaqError | None] = queue.SimpleQueue()
        self._requests.put((request, answer))
        self._ring_bell()
        try:
            refusal = answer.get(timeout=_ANSWER_DEADLINE)
        except queue.Empty:
            raise AcquisitionRefused(f"the receiver did not answer within {_ANSWER_DEADLINE:g} s") from None
        if refusal is not None:
            raise refusal

    def _ring_bell(self) -> None:
        with self._bell_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # The receiver's own thread.

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # edge of the thread: whatever ended it is kept for the node, and logged
            self.error = error
            log.exception("the receiver of %s ended", self.options.title)
        finally:
            self._finish()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            if self._turn(_WAIT_MS) == kernel.WOKEN:
                self._hear()

    def _turn(self, wait_ms: int) -> int:
        """Receive until there is something to do, and do it; returns what the kernel came back with."""
        self._take_slots()
        code = int(self._receive(self._plan, self._state, self._memory, self._producer.packet_masks, wait_ms))
        if code == kernel.RECORDED:
            self._record()
        elif code == kernel.NEED_SLOT:
            self._publish_done()
            self._take_slots()
            self._state.scalars[tables.RING_FULL] = int(self._state.scalars[tables.FREE_COUNT] == 0)
        else:
            self._publish_done()
        return code

    def _catch_up(self) -> None:
        """Take what has come to the sockets so far: it is older than what is asked for next.

        A thread that got no processor for a while has frames of some time ago there, which must not become the first
        of an acquisition. A socket that was found empty once holds nothing older.
        """
        asked = time.monotonic_ns()
        until = asked + int(_CATCH_UP * 1e9)
        drained = self._state.streams[: len(self._sockets), tables.DRAINED]
        while not self._stopping.is_set() and drained.min() < asked and time.monotonic_ns() < until:
            if self._turn(0) == kernel.WOKEN:
                os.eventfd_read(self._wake)  # `_hear`, which calls this, looks for further requests by itself

    def _finish(self) -> None:
        try:
            close_all(self._plan, self._state, self._memory, self._producer.packet_masks)
            self._publish_done()
            if name := self._account.acquisition:
                self._mark(self._account.stop(name, "failed" if self.error else "stopped", self._losses()))
            scalars = self._state.scalars
            while scalars[tables.FREE_COUNT] > 0:
                scalars[tables.FREE_COUNT] -= 1
                self._producer.discard(int(self._state.free[scalars[tables.FREE_COUNT]]))
        except Exception:  # edge of the thread: the end must be reached whatever the producer says
            log.exception("the receiver of %s could not close its books", self.options.title)

    def _take_slots(self) -> None:
        scalars = self._state.scalars
        while scalars[tables.FREE_COUNT] < _SLOTS_IN_HAND:
            slot = self._producer.acquire()
            if slot is None:
                return
            self._state.free[scalars[tables.FREE_COUNT]] = slot
            scalars[tables.FREE_COUNT] += 1

    def _publish_done(self) -> None:
        scalars = self._state.scalars
        for row in self._state.done[: scalars[tables.DONE_COUNT]].tolist():
            self._handle(self._state.frames[row].tolist())
            self._state.frames[row, tables.STATUS] = tables.FREE
        scalars[tables.DONE_COUNT] = 0

    def _handle(self, frame: list[int]) -> None:
        """Publish a finished frame, or drop it, and enter it in the books."""
        number, slot, received = frame[tables.NUMBER], frame[tables.SLOT], frame[tables.RECEIVED]
        losses = self._losses()
        marks, index = self._account.place(number, losses)
        self._mark(marks)
        complete = received == self._packets
        outcome: Outcome = "published"
        if slot < 0:
            outcome = "ring_full"
        elif not complete and self.settings.partial == "drop":
            outcome = "policy"
        first = self._own_time(frame[tables.FIRST] * 1e-9)
        header = FrameHeader(
            number=number,
            time=first,
            last=max(first, frame[tables.LAST] * 1e-9),
            index=index,
            packets_expected=self._packets,
            packets_received=received,
            total=float(frame[tables.TOTAL]),
            maximum=float(frame[tables.MAXIMUM]),
            timestamp=frame[tables.TIMESTAMP],
        )
        self._lost += header.packets_expected - received
        if index >= 0 and self._recording is not None:
            self._recording.saw(number)
        self._show(header, slot)
        if outcome == "published":
            self._frames["partial"] += not complete
            self._producer.publish(slot, header)
        elif slot >= 0:
            self._producer.discard(slot)
        self._frames[outcome] += 1
        self._mark(self._account.count(index, received, outcome, losses))

    def _show(self, header: FrameHeader, slot: int) -> None:
        if self._on_frame is None:
            return
        try:
            self._on_frame(header, self._producer.pixels[slot] if slot >= 0 else None)
        except Exception:  # whatever a view of the frames does wrong must not cost a frame
            self._on_frame = None
            log.exception("frames of %s are no longer shown", self.options.title)

    def _own_time(self, first: float) -> float:
        """Return a frame's time: that of its first packet, but later than the frame before by a microsecond at least.

        Series and files are joined by these times, so no two frames may share one. A clock that was set back by more
        than a second is believed.
        """
        if 0.0 <= self._last_time - first < _CLOCK_STEP:
            first = self._last_time + _TIME_STEP
        self._last_time = first
        return first

    def _losses(self) -> dict[str, int]:
        values = self._state.counters.tolist()
        kinds = range(tables.DUPLICATE, tables.NOT_STORED + 1)
        return {tables.COUNTERS[kind]: values[kind] for kind in kinds}

    def _mark(self, marks: Sequence[Start | End]) -> None:
        for mark in marks:
            if isinstance(mark, Start):
                self._producer.start(mark)
            else:
                if self._recording is not None:
                    mark = self._with_recorded(self._recording, mark)
                self.last_counts = {"acquisition": mark.acquisition, "reason": mark.reason, **mark.counts}
                self._producer.end(mark)

    def _with_recorded(self, recording: AcquisitionRecorder, end: End) -> End:
        """Finish the acquisition's recording; return its end with what was recorded."""
        self._recording = None
        self._record_or_not()
        counts = {**end.counts, **recording.close(end.counts, end.reason)}
        if recording.needed and recording.error is not None:
            return End(end.acquisition, "failed", {**counts, "error": str(recording.error)})
        return End(end.acquisition, end.reason, counts)

    def _record_or_not(self) -> None:
        wanted = self._recorder is not None or self._recording is not None
        self._state.scalars[tables.RECORD] = int(wanted)

    def _hear(self) -> None:
        """Obey what was asked."""
        os.eventfd_read(self._wake)
        while True:
            try:
                request, answer = self._requests.get_nowait()
            except queue.Empty:
                return
            refusal = self._obey(request)
            if answer is not None:
                answer.put(refusal)
            elif refusal is not None:
                log.warning("%s", refusal)

    def _obey(self, request: Request) -> SisockdaqError | None:
        try:
            if isinstance(request, Arm):
                self._catch_up()
                frames = self._state.frames
                status = frames[:, tables.STATUS]
                assembled = frames[(status == tables.OPEN) | (status == tables.CLOSED), tables.NUMBER]
                self._mark(self._account.arm(request, assembled.tolist(), self._losses()))
                self._begin_recording(request)
            elif isinstance(request, Stop):
                self._mark(self._account.stop(request.acquisition, request.reason, self._losses()))
        except SisockdaqError as refusal:
            return refusal
        return None

    def _begin_recording(self, arm: Arm) -> None:
        """Open the recording that an acquisition wants; one that cannot be had ends it at once."""
        try:
            self._recording = self._open_recording(arm)
        except SisockdaqError as error:
            ends = self._account.stop(arm.acquisition, "failed", self._losses())
            self._mark(
                [replace(m, counts={**m.counts, "error": str(error)}) if isinstance(m, End) else m for m in ends]
            )
        self._record_or_not()

    def _record(self) -> None:
        """Hand every datagram of the batch to whoever records."""
        recorders = [one for one in (self._recorder, self._recording) if one is not None]
        scalars, state = self._state.scalars, self._state
        stream = int(scalars[tables.SOCKET])
        for message in range(int(scalars[tables.MESSAGES])):
            length = int(state.messages[message, 7]) & 0xFFFFFFFF
            size = kernel.packet_bytes(state, message, length)
            begin = message * tables.MESSAGE_BYTES
            for at in range(begin, begin + length, size):
                for recorder in recorders:
                    recorder.write(stream, state.linear[at : min(at + size, begin + length)].data)
        recording, name = self._recording, self._account.acquisition
        if recording is not None and recording.needed and recording.error is not None and name is not None:
            self._mark(self._account.stop(name, "failed", self._losses()))

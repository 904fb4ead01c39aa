"""The stream writer at work: messages of one or several senders in, files, notices and republished messages out.

One thread owns sockets, files and the state machine (`sisockdaq.acquisition`, whose words for states and messages are
used); others ask through `StreamWriter.status` and `StreamWriter.cancel`.

Promises
--------
- Whatever comes, nothing hangs and no message ends the thread: what cannot be read or written is counted, and why.
- What is on disk is committed every ``flush_interval``; closed files stay valid whatever happens.
- A series ends with the end messages of all its senders; without them, by the next start message, or `end_timeout`
  after all images have come or all senders have gone.
- A failure to write ends the series as FAILED with the reason; the next one starts afresh.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import zmq

from sisockdaq import acquisition as life
from sisockdaq.errors import FrameSourceError, SisockdaqError
from sisockdaq.frames import bitplanes
from sisockdaq.frames.stream2 import EndMessage, ImageMessage, OtherMessage, StartMessage
from sisockdaq.jungfraujoch._ending import WRITE_ERRORS, Ending
from sisockdaq.jungfraujoch.books import Books, note, run_id_of
from sisockdaq.jungfraujoch.dialect import Header, parse_start
from sisockdaq.jungfraujoch.in_place import read_message
from sisockdaq.jungfraujoch.options import WriterOptions
from sisockdaq.jungfraujoch.outlets import Outlets
from sisockdaq.jungfraujoch.senders import Sender, open_senders
from sisockdaq.jungfraujoch.series import Series
from sisockdaq.jungfraujoch.status import IDLE, Tally, Troubles, series_status

__all__ = ["StreamWriter"]

_BATCH = 32
"""Messages that are taken from one sender before the others are looked at."""

_TICK = 0.05
"""Time between looks at deadlines, and longest wait for a message [s]."""

_OTHERS_WAIT = 5.0
"""Time that the next series of one sender waits for the end messages of the others [s]."""

_PENDING_BYTES = 2**25
"""Results of images that may wait in memory for the next commit."""

_log = logging.getLogger(__name__)


class StreamWriter(Ending):
    """Writes what comes over Stream V2.

    Parameters
    ----------
    options : WriterOptions
    on_status : callable, optional
        Called with `status` at every change of state; from the writer's thread.
    on_file : callable, optional
        Called with each `ClosedFile`; from the writer's thread.

    Raises
    ------
    ConfigurationError
        When an address is none.
    PortTaken
        When a port that is to be bound is in use.
    """

    def __init__(self, options: WriterOptions, *, on_status: Any = None, on_file: Any = None) -> None:
        self.options = replace(options, root=options.root.absolute())
        self.machine = life.AcquisitionMachine()
        self.tally = Tally()
        self.books = Books(options.journal, options.name)
        self._context: zmq.Context[Any] = zmq.Context()
        self._outlets: Outlets | None = None
        self._senders: list[Sender] = []
        self._series: Series | None = None
        self._last_status: dict[str, Any] = {}
        self._refused: tuple[Header | None, str] | None = None
        self._cancelled: tuple[int, str] | None = None
        self._commands: queue.SimpleQueue[Future[dict[str, Any]]] = queue.SimpleQueue()
        self._next_commit = self._next_tick = 0.0
        self._last_message = time.monotonic()
        self._last_end: float | None = None
        self._held_since = 0.0
        self._on_status = on_status or (lambda status: None)
        self._on_file = on_file or (lambda closed: None)
        self._stopping = threading.Event()
        try:
            self._open_sockets()
        except BaseException:
            self._close_sockets()
            self.books.close()
            raise
        self._status = self._snapshot()
        self._thread = threading.Thread(target=self._run, name="stream writer", daemon=True)

    # For other threads.

    def start(self) -> StreamWriter:
        """Begin to take messages."""
        self._thread.start()
        return self

    def close(self, timeout: float = 20.0) -> None:
        """Close the files in order, whatever is under way, and let go of all sockets."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        else:
            self._close_sockets()
        self.books.close()

    def log(self, most: int = 100) -> list[dict[str, Any]]:
        """Return the newest series that have ended, newest first, failed ones included, as the file writer's log."""
        return self.books.newest(most)

    def status(self) -> dict[str, Any]:
        """Return what is known of the current or last series; see `status` of this package for the keys."""
        return dict(self._status)

    def cancel(self, timeout: float = 20.0) -> dict[str, Any]:
        """Close the files of the series under way, readable; return the status.

        The rest of its images is passed over; the next series is written.
        """
        answer: Future[dict[str, Any]] = Future()
        self._commands.put(answer)
        return answer.result(timeout)

    @property
    def republish_address(self) -> str | None:
        """Where messages are passed on."""
        return self._outlets.republish_address if self._outlets is not None else None

    @property
    def notices_address(self) -> str | None:
        """Where finalised files are told of."""
        return self._outlets.notices_address if self._outlets is not None else None

    # The writer's own thread.

    def _open_sockets(self) -> None:
        options = self.options
        self._outlets = Outlets(self._context, options)
        self._senders = open_senders(self._context, list(options.connect), options.receive_watermark)
        self._poller = zmq.Poller()

    def _close_sockets(self) -> None:
        for sender in self._senders:
            sender.close()
        if self._outlets is not None:
            self._outlets.close()
        self._context.term()

    def _run(self) -> None:
        try:
            bitplanes.warm_up()  # now, not when the first image without packing comes
            while not self._stopping.is_set():
                self._wait()
                for sender in self._senders:
                    self._take_from(sender)
                self._between()
        except Exception:  # the edge of a thread
            _log.exception("the stream writer's thread has failed")
        finally:
            self._end_series(life.SourceLost("the writer was ended"))
            self._look()
            self._close_sockets()

    def _wait(self) -> None:
        wait = self._outlets.retry() if self._outlets is not None else None
        for sender in self._senders:
            self._poller.register(sender.socket, 0 if sender.held is not None else zmq.POLLIN)
        self._poller.poll(int(1000 * min(wait or _TICK, _TICK)))

    def _take_from(self, sender: Sender) -> None:
        for _ in range(_BATCH):
            if sender.held is not None:
                return
            try:
                frame = sender.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._last_message = time.monotonic()
            try:
                self._message(sender, frame)
            except WRITE_ERRORS as error:
                self._fail(error)

    def _message(self, sender: Sender, frame: Any) -> None:
        if frame.more:
            while frame.more:
                frame = sender.socket.recv(copy=False)
            self.tally.unreadable_message("a message in several parts")
            return
        try:
            message = read_message(frame.buffer)
        except FrameSourceError as error:
            self.tally.unreadable_message(error.message)
            return
        if self._outlets is not None:
            self._outlets.pass_on(frame, message)
        match message:
            case ImageMessage():
                self._image(message)
            case StartMessage():
                self._start_came(sender, message)
            case EndMessage():
                self._end_came(sender, message)
            case OtherMessage("calibration"):
                if self._series is not None:
                    self._series.calibration(message)
            case OtherMessage():
                self._metadata(message)

    # Messages.

    def _start_came(self, sender: Sender, message: StartMessage) -> None:
        try:
            header = parse_start(message, self.options.file_prefix)
        except SisockdaqError as error:
            if self._series is not None:
                self._end_lost("a new series began")
            self._refuse(None, error)
            return
        series = self._series
        if series is not None and series.header.key == header.key and not sender.started:
            sender.started = True
            series.join(header)
        elif series is not None and series.header.key == header.key != (0, "") and not sender.ended:
            self.tally.repeated_starts += 1
        elif series is not None and self._others_at_work(sender):
            self.tally.ends_lost += sender.started and not sender.ended
            sender.ended = True
            sender.held, self._held_since = header, time.monotonic()
        else:
            if series is not None:
                self._end_lost("a new series began")
            self._begin(sender, header)

    def _others_at_work(self, sender: Sender) -> bool:
        """Whether another sender may still send something of this series, even its start message."""
        others = (other for other in self._senders if other is not sender and not other.ended)
        return any(other.started or other.peers for other in others)

    def _begin(self, sender: Sender, header: Header) -> None:
        for each in self._senders:
            each.started = each.ended = False
        sender.started = True
        self._last_end, self._cancelled, self._refused = None, None, None
        now = time.time()
        run_id = run_id_of(header)
        wanted = life.Request(header.file_prefix, header.number_of_images, meta=header.facts, run_id=run_id)
        self.machine.start(wanted, now)
        assert self.machine.current is not None
        self.books.begin(self.machine.current, header)
        try:
            self._series = Series(header, self.options, self._file_closed)
        except WRITE_ERRORS as error:
            self.machine.refused()
            self.books.refused()
            self._refuse(header, error)
            return
        self.tally.begin(now)
        self.machine.handle(life.SourceStarted(header.file_prefix), now)
        _log.info("%s begins", header.file_prefix)
        self._look()

    def _refuse(self, header: Header | None, error: Exception) -> None:
        reasons = getattr(error, "reasons", None)
        text = "; ".join(reasons) if reasons and len(reasons) > 1 else str(error)
        self._refused = (header, text)
        self.tally.series_refused += 1
        _log.error("series refused: %s", text)
        self._look()

    def _image(self, message: ImageMessage) -> None:
        series = self._series
        key = (message.series_id, message.series_unique_id)
        if series is None or not _same(series.header.key, key):
            self._stray(key)
            return
        if not self.machine.taking_frames:
            series.counts.discarded += 1
            return
        if series.counts.written == 0:
            self.machine.handle(life.FirstFrame(), time.time())
        series.image(message, time.time())

    def _metadata(self, message: OtherMessage) -> None:
        """Take a metadata message; one that comes outside its series has no master to go to."""
        self.tally.metadata += 1
        fields = message.fields
        key = (fields.get("series_id", 0), fields.get("series_unique_id", ""))
        if self._series is not None and _same(self._series.header.key, key):
            self._series.metadata(message)
        else:
            self.tally.metadata_strays += 1

    def _stray(self, key: tuple[int, str]) -> None:
        """Count an image that is not of the series that is written."""
        refused = self._refused is not None and (self._refused[0] is None or _same(self._refused[0].key, key))
        if refused or (self._cancelled is not None and _same(self._cancelled, key)):
            self.tally.discarded += 1
        else:
            self.tally.stray()

    def _end_came(self, sender: Sender, message: EndMessage) -> None:
        series = self._series
        if series is None or not _same(series.header.key, (message.series_id, message.series_unique_id)):
            self._cancelled = None
            return
        sender.ended = True
        self._last_end = time.monotonic()
        collected = message.fields.get("max_image_number")
        if isinstance(collected, int) and not isinstance(collected, bool) and collected >= 0:
            self.tally.collected = max(self.tally.collected or 0, collected)
        self._end_if_all_have()

    def _end_if_all_have(self) -> None:
        """End the series once every sender that is there has said so."""
        if all(sender.ended or not (sender.started or sender.peers) for sender in self._senders):
            assert self._series is not None
            self._end_series(life.SourceEnded(self._series.header.file_prefix, "complete", self.tally.collected))

    def _end_lost(self, why: str) -> None:
        self.tally.ends_lost += 1
        self._end_series(life.SourceLost(f"no end message came; {why}"))

    # Between messages.

    def _between(self) -> None:
        now = time.monotonic()
        while not self._commands.empty():
            answer = self._commands.get()
            self._cancel()
            self._look()
            answer.set_result(self.status())
        try:
            if self._series is not None:
                self._series.drain()
                if now >= self._next_commit or self._series.pending_bytes > _PENDING_BYTES:
                    self._series.commit(now)
                    self._next_commit = now + self.options.flush_interval
        except WRITE_ERRORS as error:
            self._fail(error)
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            for sender in self._senders:
                sender.look()
            self._deadlines(now)
            self._look()
        self._begin_held()

    def _deadlines(self, now: float) -> None:
        series = self._series
        if series is None:
            return
        idle = now - self._last_message
        if self._last_end is not None:
            self._end_if_all_have()
            if self._series is not None and now - max(self._last_end, self._last_message) > _OTHERS_WAIT:
                self.tally.ends_lost += sum(sender.started and not sender.ended for sender in self._senders)
                self._end_series(life.SourceEnded(series.header.file_prefix, "complete", self.tally.collected))
        elif any(sender.held is not None for sender in self._senders) and now - self._held_since > _OTHERS_WAIT:
            self._end_lost("another sender has begun a new series")
        elif idle > self.options.end_timeout and series.complete:
            self.tally.ends_lost += 1
            self._end_series(life.SourceEnded(series.header.file_prefix, "complete", None))
        elif idle > self.options.end_timeout and not any(sender.peers for sender in self._senders):
            self._end_lost("the sender has gone")

    def _begin_held(self) -> None:
        """Begin the series whose start messages had to wait."""
        for sender in self._senders:
            if sender.held is None:
                continue
            if self._series is None:
                header, sender.held = sender.held, None
                self._begin(sender, header)
            elif sender.held.key == self._series.header.key:
                self._series.join(sender.held)
                sender.held, sender.started = None, True

    def _look(self) -> None:
        """Make the status that others see; tell of it when the state has changed."""
        before, self._status = self._status, self._snapshot()
        if any(before[key] != self._status[key] for key in ("state", "acquisition_state", "file_prefix", "message")):
            self._on_status(self.status())

    def _snapshot(self) -> dict[str, Any]:
        series, record, tally = self._series, self.machine.current, self.tally
        if series is not None and record is not None:
            note(record, series)
            status = series_status(series, tally, record)
            tally.look(status["images"]["written"], status["bytes_written"], time.time())
            rates = tally.rates()
        else:
            status, rates = self._last_status or IDLE, (0.0, 0.0)
        connected = sum(sender.peers > 0 for sender in self._senders)
        refused = self._refused[1] if self._refused is not None else None
        cancelled = self._cancelled is not None and series is None
        reason = Troubles(refused, cancelled, tally.strays_now, connected, series is None).text
        outlets = self._outlets.counts() if self._outlets is not None else {}
        return {
            "state": str(self.machine.state),
            **status,
            "message": status["message"] if refused is None else refused,
            "synchronised": not reason,
            "desynchronised_by": reason,
            "connected": connected,
            "sockets": len(self._senders),
            "files_closed": tally.files_closed,
            "frame_rate": rates[0],
            "data_rate": rates[1],
            "messages": {**tally.to_dict(), **outlets},
        }


def _same(one: tuple[int, str], other: tuple[int, str]) -> bool:
    """Whether two keys are of one series; a sender that gives none sends one series at a time."""
    return one == other or (0, "") in (one, other)

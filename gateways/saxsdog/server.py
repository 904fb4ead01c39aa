"""`Server`: what SAXSdog's commands do. One queue of pictures at a time; a new one takes the place of the old.

No sockets: requests come checked from `service`, replies go there. Every command but ``new`` and ``abort`` answers at
once. A ``new`` that cannot begin leaves the running queue as it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.saxsdog.calibration import Calibration, read_calibration
from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.listing import Allowed, is_below
from sisockdaq.saxsdog.masks import mask_from_attachment
from sisockdaq.saxsdog.merge import Merging
from sisockdaq.saxsdog.wire import Attachment, Request, failure

if TYPE_CHECKING:
    from sisockdaq.saxsdog.queue import PictureQueue

__all__ = ["Server"]

RELATIVE = "../work"
"""Where curves go, seen from the folder of their image, as the original's default."""


FAILURES_TOLD = 20
"""Most failed images that ``stat`` names: the newest."""


class Server:
    """The commands of a SAXSdog server.

    Parameters
    ----------
    allowed : Allowed
        The server's folder, and what else clients may name.
    workers : int, optional
        Processes where the calibration does not say; None: what the machine has.
    relative : str
        Folder of the curves, relative to that of the image.
    output : Path, optional
        One folder for all curves instead.
    make_queue : callable, optional
        Makes a queue from what `PictureQueue` is made from; for tests.
    """

    def __init__(
        self,
        allowed: Allowed,
        *,
        workers: int | None = None,
        relative: str = RELATIVE,
        output: Path | None = None,
        make_queue: Callable[..., PictureQueue] | None = None,
    ) -> None:
        self.allowed = allowed
        self._make_queue = make_queue or _picture_queue
        self._workers = workers
        self._relative = relative
        self._output = output
        self._queue: PictureQueue | None = None
        self._calibration: Calibration | None = None
        self._attachments: tuple[Attachment, ...] = ()
        self._directory = allowed.base
        self._listening = False
        self._lock = threading.Lock()
        self._merging = Merging()
        self.news = 0
        self.news_ignored = 0
        self._commands: dict[str, Callable[[Request], dict[str, Any]]] = {
            "new": self._new,
            "close": self._close,
            "abort": self._abort,
            "readdir": self._readdir,
            "plot": self._plot,
            "plotdata": self._plot,
            "get": self._get,
            "stat": self._stat_reply,
            "fileslist": self._fileslist,
            "listdir": self._listdir,
            "mergedata": self._mergedata,
            "getmergedata": lambda _: self._merging.result(),
            "mergestat": lambda _: _reply("stat", mergeinfo=self._merging.news()),
        }

    # For the sockets.

    def answer(self, request: Request) -> dict[str, Any]:
        """Do a command and return its reply; never raises for what a client can get wrong."""
        try:
            return self._commands[request.command](request)
        except OSError as error:
            return failure("OSError", error)
        except ConfigurationError as error:
            return failure("ValueError", "; ".join(error.problems))
        except (SisockdaqError, ValueError) as error:
            return failure("ValueError", error)

    def new_file(self, path: str) -> bool:
        """Queue a file that a feeder told of; return whether it was taken. For the feeder's thread."""
        with self._lock:
            queue = self._queue if self._listening else None
        self.news += 1
        # The queue itself refuses what lies outside of its folder.
        taken = queue is not None and queue.put(Path(os.path.normpath(self.allowed.base / path)))
        self.news_ignored += not taken
        return taken

    def shut_down(self) -> None:
        """End the queue: pictures in hand are finished."""
        self._end_queue()
        self._merging.stop()

    @property
    def directory(self) -> Path | None:
        """The queue's folder, while there is a queue."""
        return self._directory if self._queue is not None else None

    def summary(self) -> dict[str, Any]:
        """Return what became of pictures and of the feeder's news, and what went wrong last."""
        queue = self._queue
        numbers: dict[str, Any] = {"news": self.news, "news_ignored": self.news_ignored}
        if queue is None:
            return numbers
        counts = queue.counts()
        for name in ("processed", "waiting", "in_hand", "retries", "failed", "dropped", "restarts", "rate", "problem"):
            numbers[name] = getattr(counts, name)
        failures = queue.failures()
        numbers["last_failure"] = f"{failures[-1].path}: {failures[-1].reason}" if failures else ""
        return numbers

    # The commands.

    def _new(self, request: Request) -> dict[str, Any]:
        said = request.argument.get("calibration")
        if not isinstance(said, dict):
            return {"result": "ValidationError in request", "data": "'calibration' is a required property"}
        try:
            calibration = read_calibration(said)
        except ConfigurationError as error:
            return {"result": "ValidationError in request", "data": "\n".join(error.problems)}
        directory = self.allowed.find(list(calibration.directory), "Directory")
        if not directory.is_dir():
            raise NotADirectoryError(f"{directory} is no folder of this server")
        reduction = Reduction(calibration, _masks(calibration, request.attachments))
        self._end_queue()
        queue = self._make_queue(reduction, directory, workers=self._processes(calibration), **self._places(directory))
        queue.start()
        with self._lock:
            self._queue, self._listening = queue, True
        self._calibration, self._directory, self._attachments = calibration, directory, request.attachments
        return _reply("new queue", cal=calibration.raw)

    def _processes(self, calibration: Calibration) -> int | None:
        return None if calibration.threads > 0 else self._workers

    def _places(self, directory: Path) -> dict[str, Any]:
        """Return where the queue writes; nothing goes outside of the allowed folders."""
        if self._output is not None:
            return {"output": self._output, "live_list": self._output / f"filelist_{directory.name}.log"}
        try:
            self.allowed.check(directory / self._relative)
            self.allowed.check(directory.parent)
        except PermissionError:
            # The folder of images is all that this server has: the results go into it.
            return {"relative": "work", "live_list": directory / "results" / f"filelist_{directory.name}.log"}
        return {"relative": self._relative}

    def _close(self, _: Request) -> dict[str, Any]:
        with self._lock:
            self._listening = False
        return _reply("queue closed", stat=self._stat())

    def _abort(self, _: Request) -> dict[str, Any]:
        self._end_queue()
        return _reply("queue aborted", stat=self._stat())

    def _readdir(self, _: Request) -> dict[str, Any]:
        if self._queue is None:
            return failure("ValueError", "Start Queue first")
        self._queue.readdir()
        return _reply("queue restarted with all files", stat=self._stat())

    def _plot(self, _: Request) -> dict[str, Any]:
        queue = self._queue
        if queue is None:
            return _reply("no queue")
        shared = {
            "stat": self._stat(),
            "history": queue.history(),
            "IntegralParameters": queue.integral_parameters(),
        }
        latest = queue.latest()
        return _reply("Empty", **shared) if latest is None else _reply("plot", **latest, **shared)

    def _get(self, _: Request) -> dict[str, Any]:
        if self._queue is None or self._calibration is None:
            return _reply("no queue")
        attachments = [{"filename": one.filename, "data": one.data} for one in self._attachments]
        return _reply("cal", cal=self._calibration.raw, attachments=attachments)

    def _fileslist(self, _: Request) -> dict[str, Any]:
        return _reply("resultfileslists", fileslist={} if self._queue is None else self._queue.file_lists())

    def _listdir(self, request: Request) -> dict[str, Any]:
        return _reply("listdir", **self.allowed.list(request.argument.get("directory", ["."])))

    def _mergedata(self, request: Request) -> dict[str, Any]:
        if self._queue is None:
            return failure("Error", "no queue: its directory is where the images are")
        if self._merging.runs:
            return failure("Error", "Merge already started please wait")
        conf = request.argument.get("mergeconf")
        try:
            self._merging.start(conf, request.attachments, self._directory, self.allowed, self._curve_folders())
        except (SisockdaqError, OSError, ValueError) as error:
            return failure("Error", error)
        return _reply("merge started" + "mergedata")

    def _curve_folders(self) -> list[Path]:
        """Return the folders, outside of the images', to which the curves go."""
        if self._output is not None:
            return [self._output]
        beside = Path(os.path.normpath(self._directory / self._relative))
        below = beside.is_relative_to(self._directory)
        return [beside] if not below and is_below(beside, self.allowed.base) and beside.is_dir() else []

    def _stat_reply(self, request: Request) -> dict[str, Any]:
        """Say how far the queue is; who asks for details, as our leash does, is told of failures too."""
        reply = _reply("stat", stat=self._stat(tell_merge=True))
        queue = self._queue
        if queue is not None and request.argument.get("details") is True:
            failures = [{"path": one.path, "reason": one.reason} for one in queue.failures()[-FAILURES_TOLD:]]
            reply["data"]["details"] = {**self.summary(), "failures": failures}
        return reply

    def _stat(self, *, tell_merge: bool = False) -> dict[str, Any]:
        queue = self._queue
        if queue is None:
            return {}
        state = dict(queue.state())
        if tell_merge and (count := self._merging.newly_finished()):
            state["mergecount"] = count
        return state

    def _end_queue(self) -> None:
        with self._lock:
            queue, self._queue, self._listening = self._queue, None, False
        if queue is not None:
            queue.abort()


def _picture_queue(*args: Any, **kwargs: Any) -> PictureQueue:
    from sisockdaq.saxsdog.queue import PictureQueue

    return PictureQueue(*args, **kwargs)


def _reply(result: str, **data: Any) -> dict[str, Any]:
    return {"result": result, "data": data}


def _masks(calibration: Calibration, attachments: tuple[Attachment, ...]) -> list[Any]:
    """Return the masks that came with a calibration, in the order of its masks."""
    wanted = calibration.masks
    if len(attachments) < len(wanted):
        raise ValueError(f"the calibration has {len(wanted)} masks, {len(attachments)} came with it")
    return [mask_from_attachment(one.filename, one.data) for one, _ in zip(attachments, wanted, strict=False)]

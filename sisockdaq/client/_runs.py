"""Acquisitions, as a client starts, follows and stops them: calls to the writer node, and its ledger.

The writer's control procedures are ``start(acquisition, frames, directory, meta, raw)``, ``stop()`` and ``status()``. A
status is ``{"state": "READY" | "WRITING", "acquisition", "acquisition_state", "frames", "frames_written", "rate",
"time_left", "files", "ledger", "message", …}`` of the acquisition that is under way, or was the last.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sisockdaq.client._patience import patience
from sisockdaq.errors import (
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    FileUnreadable,
    NodeNotFound,
    SisockdaqError,
    StorageError,
)

if TYPE_CHECKING:
    from sisockdaq.client._asking import Catalog
    from sisockdaq.client._network import Network
    from sisockdaq.frames.ledger import Ledger

__all__ = ["Run", "find_ledger", "find_writer", "list_acquisitions", "start_run"]

START_DEADLINE = 20.0
"""Time that the writer gets to check, open its files and arm the source [s]."""

STALLED_AFTER = 30.0
"""An acquisition of which nothing new was heard for so long [s] is not waited for any longer."""

_WRITER_TYPE = "file_writer"

_FAILED = "FAILED"


class _Forgotten(SisockdaqError):
    """The writer knows of no acquisition: it was restarted, and may be about to take it up again."""


class Run:
    """One acquisition.

    Parameters
    ----------
    name : str
    writer : str
        The node that writes it.
    controlling : callable
        Returns a connection with control rights.
    network : Network
        For reading.
    """

    def __init__(self, name: str, writer: str, controlling: Callable[[], Network], network: Network) -> None:
        self.name = name
        self.writer = writer
        self._controlling = controlling
        self._network = network
        self._last: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<acquisition {self.name} of {self.writer}>"

    def status(self) -> dict[str, Any]:
        """Return how far it is, as the writer says.

        Raises
        ------
        SisockdaqError
            When the writer is busy with another acquisition, or does not answer.
        """
        status = dict(self._controlling().call(f"control.{self.writer}.status"))
        if status.get("acquisition") == self.name:
            self._last = status
            return status
        if self._last.get("state") == "READY":
            return self._last
        kind = SisockdaqError if status.get("acquisition") else _Forgotten
        raise kind(
            f"{self.writer} knows of {status.get('acquisition') or 'no acquisition'}, not of {self.name}",
            remedy=f"`sisockdaq ledger {self.name}` asks the archive",
        )

    def wait(
        self,
        timeout: float | None = None,
        *,
        progress: bool | None = None,
        on_status: Callable[[dict[str, Any]], None] | None = None,
        stalled_after: float = STALLED_AFTER,
    ) -> Run:
        """Wait until the files are closed and the ledger is final.

        Parameters
        ----------
        timeout : float, optional
            Longest wait [s]; without it, as long as frames come.
        progress : bool, optional
            Whether to show a progress bar; default: on a terminal.
        on_status : callable, optional
            Called with each status.
        stalled_after : float
            Longest time without news [s].

        Raises
        ------
        DeadlineExceeded
            When it takes longer, or nothing moves; the acquisition itself goes on.
        StorageError
            When the acquisition failed, with the reason.
        """
        from sisockdaq.client._progress import progress_bar

        shown = sys.stderr.isatty() if progress is None else progress
        begun = moved = time.monotonic()
        news: Any = None
        with progress_bar(self.name, shown) as show:
            while True:
                status = self._patient_status(stalled_after)
                show(status)
                if on_status is not None:
                    on_status(status)
                if _over(status):
                    return self._ended(status)
                now = time.monotonic()
                latest = [status.get(key) for key in ("state", "acquisition_state", "frames_written", "message")]
                if latest != news:
                    news, moved = latest, now
                if timeout is not None and now - begun > timeout:
                    raise DeadlineExceeded(f"{self.name} did not end within {timeout:g} s: {_told(status)}")
                if now - moved > stalled_after:
                    raise DeadlineExceeded(
                        f"nothing new of {self.name} for {stalled_after:g} s: {_told(status)}",
                        remedy="it goes on; `sisockdaq nodes` says who answers, Run.stop() ends it",
                    )
                time.sleep(0.1)

    def stop(self) -> Run:
        """End it now; what was taken is kept. Waits until the ledger is final."""
        self._controlling().call(f"control.{self.writer}.stop", deadline=START_DEADLINE)
        return self.wait(START_DEADLINE + STALLED_AFTER, progress=False)

    @property
    def files(self) -> list[str]:
        """Paths of its files."""
        return [str(path) for path in self.status().get("files") or ()]

    @property
    def ledger(self) -> Ledger:
        """Where every packet and frame went.

        Raises
        ------
        SisockdaqError
            While it is not final.
        """
        ledger = self.status().get("ledger")
        if not ledger:
            raise SisockdaqError(f"the ledger of {self.name} is not closed yet", remedy="wait for its end: Run.wait()")
        return _ledger(ledger)

    def _patient_status(self, seconds: float) -> dict[str, Any]:
        """Return the status, bearing a router or a writer that is away, or has just come back, for a while."""
        error: SisockdaqError = DeadlineExceeded(f"{self.writer} did not answer")
        forgotten_since: float | None = None
        for _ in patience(seconds):
            try:
                return self.status()
            except (NodeNotFound, ConnectionFailed, DeadlineExceeded) as away:
                error = away
            except _Forgotten as forgotten:
                error = forgotten
                forgotten_since = forgotten_since or time.monotonic()
                if time.monotonic() - forgotten_since > STALLED_AFTER:
                    break
        raise error

    def _ended(self, status: dict[str, Any]) -> Run:
        if status.get("acquisition_state") == _FAILED:
            raise StorageError(f"{self.name} failed: {status.get('message') or 'no reason given'}")
        return self


def start_run(
    control: Network,
    network: Network,
    writer: str,
    name: str,
    frames: int | None,
    directory: str | None,
    meta: Mapping[str, Any] | None,
    raw: str | None = None,
) -> Run:
    """Start an acquisition; see `Client.acquire`."""
    if frames is not None and frames < 1:
        raise ConfigurationError(f"{frames} frames cannot be taken; give at least 1, or none for an open end")
    wanted: dict[str, Any] = {"acquisition": name, "frames": frames, "directory": directory, "meta": meta}
    wanted["raw"] = raw
    given = {key: value for key, value in wanted.items() if value is not None}
    control.call(f"control.{writer}.start", deadline=START_DEADLINE, **given)
    return Run(name, writer, lambda: control, network)


def find_writer(network: Network) -> str:
    """Return the only writer of the network; one that only records series is none of several.

    Raises
    ------
    NodeNotFound, ConfigurationError
        When there is none, or more than one.
    """
    writers = _writers(network)
    if len(writers) > 1:
        writers = [name for name in writers if _takes_images(network, name)] or writers
    if len(writers) == 1:
        return writers[0]
    if not writers:
        raise NodeNotFound("no file writer is on this network", remedy="add a node of type file_writer to the site")
    raise ConfigurationError(f"which writer? There are {', '.join(writers)}", remedy="name one")


def list_acquisitions(network: Network, catalog: Catalog) -> list[dict[str, Any]]:
    """Return what all archives hold, oldest first; each entry with the archive's name as ``archive``."""
    names = [str(entry["name"]) for entry in catalog.nodes()]
    asked: dict[str, Future[Any]] = {n: network.start_call(f"consumer.{n}.acquisitions") for n in names}
    found: list[dict[str, Any]] = []
    for name, future in asked.items():
        try:
            found += [{**entry, "archive": name} for entry in network.result(future, network.deadline)]
        except NodeNotFound:
            # Not an archive.
            continue
    return sorted(found, key=lambda entry: (entry.get("span") or [0])[0] or 0)


def find_ledger(network: Network, catalog: Catalog, controlling: Callable[[], Network], name: str | None) -> Ledger:
    """Return a ledger by the acquisition's name (None: the newest) from the archives, else from the writers."""
    held = [entry for entry in list_acquisitions(network, catalog) if name in (None, _acquisition(entry))]
    for entry in reversed(held):
        if entry.get("ledger"):
            return _ledger(entry["ledger"])
    for writer in _writers(network):
        try:
            status = controlling().call(f"control.{writer}.status")
        except ConfigurationError:
            continue  # it only records series
        if status.get("acquisition") and name in (None, status["acquisition"]):
            if status.get("ledger"):
                return _ledger(status["ledger"])
            raise SisockdaqError(f"the ledger of {status['acquisition']} is not closed yet: {_told(status)}")
    if held:
        raise FileUnreadable(f"the files of {_acquisition(held[-1])} hold no ledger; the writer did not end them")
    raise FileUnreadable(
        f'no acquisition "{name}" is known' if name else "no acquisition is known yet",
        remedy="`sisockdaq ledger` without a name shows the newest",
    )


def _writers(network: Network) -> list[str]:
    """Return the nodes whose type is that of the file writer."""
    try:
        nodes = network.call("consumer.get_status")["nodes"]
    except NodeNotFound:
        # An older hub knows no types.
        nodes = network.call("consumer.get_data_node")
    types = {str(entry["name"]): entry.get("type") for entry in nodes}
    # The hub has not asked the newest nodes yet.
    asked = {name: network.start_call(f"consumer.{name}.ping") for name, kind in types.items() if kind is None}
    for name, future in asked.items():
        try:
            types[name] = network.result(future, network.deadline).get("type")
        except SisockdaqError:
            # An older node, or one that does not answer: not a writer that could be used.
            continue
    return sorted(name for name, kind in types.items() if _WRITER_TYPE in str(kind))


def _over(status: Mapping[str, Any]) -> bool:
    return status.get("state") == "READY"


def _told(status: Mapping[str, Any]) -> str:
    frames = f" of {status['frames']}" if status.get("frames") else ""
    state = status.get("acquisition_state") or status.get("state")
    message = f"; {status['message']}" if status.get("message") else ""
    return f"{state}, {status.get('frames_written', 0)}{frames} frames written{message}"


def _acquisition(entry: Mapping[str, Any]) -> str:
    return str(entry.get("acquisition") or entry.get("name") or "")


def _ledger(data: Mapping[str, Any]) -> Ledger:
    # Here, so that clients on machines without the frame plane's libraries can do everything else.
    from sisockdaq.frames.ledger import Ledger

    return Ledger.from_dict(data)


def _takes_images(network: Network, writer: str) -> bool:
    """Whether a writer has acquisitions; one that does not answer may have."""
    try:
        fields, _ = network.result(network.start_listing(writer), network.deadline)
    except SisockdaqError:
        return True
    return "acquisition" in fields.fields

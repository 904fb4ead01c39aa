"""`Leash`: asks a SAXSdog server, the original or ours.

Each question has a deadline and a socket of its own, so that a server that died leaves no client hanging.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from sisockdaq.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    ReplyInvalid,
    SisockdaqError,
)
from sisockdaq.saxsdog.wire import Attachment, read_reply, signed_request

__all__ = ["Leash", "load_calibration", "load_merge"]

TIMEOUT = 100.0
"""Longest wait for a reply, as in the original: a new queue takes a while [s]."""

_FAILURES = {"AuthenticationError", "ValidationError in request", "ValueError in request", "ServerError"}
_ERRORS = {"Error", "OSError", "IOError", "ValueError", "ErrorNotimplemented"}


class Leash:
    """A client of a server.

    Parameters
    ----------
    url : str
    secret : str
    strict : bool
        Whether attachments are signed; the original server wants False.
    timeout : float
        Longest wait for a reply [s].
    """

    def __init__(self, url: str, secret: str, *, strict: bool = True, timeout: float = TIMEOUT) -> None:
        self.url = url
        self._secret = secret
        self._strict = strict
        self._timeout = timeout

    def ask(
        self, command: str, argument: dict[str, Any] | None = None, attachments: Sequence[Attachment] = ()
    ) -> dict[str, Any]:
        """Return the server's reply, whatever it says.

        Raises
        ------
        ConnectionFailed, DeadlineExceeded, ReplyInvalid
        """
        socket: Any = zmq.Context.instance().socket(zmq.REQ)
        socket.set(zmq.LINGER, 0)
        try:
            socket.connect(self.url)
            socket.send_multipart(
                signed_request(command, argument or {}, self._secret, attachments, strict=self._strict)
            )
            if not socket.poll(round(1e3 * self._timeout)):
                raise DeadlineExceeded(
                    f"{self.url} did not answer {command} within {self._timeout:g} s",
                    remedy="is the server running, and the address right? (saxsdogserver, ~/.saxsdognetwork)",
                )
            return read_reply(socket.recv())
        except zmq.ZMQError as error:
            raise ConnectionFailed(f"{self.url}: {error.strerror}", remedy="name a server with --server") from None
        except ValueError as error:
            raise ReplyInvalid(f"{self.url}: {error}", remedy="is this a SAXSdog server?") from None
        finally:
            socket.close(0)

    def do(
        self, command: str, argument: dict[str, Any] | None = None, attachments: Sequence[Attachment] = ()
    ) -> dict[str, Any]:
        """Return the reply of a command that went well.

        Raises
        ------
        SisockdaqError
            What the server says was wrong.
        """
        try:
            return checked(self.ask(command, argument, attachments), self.url)
        except AuthenticationFailed as error:
            # Asked while the server was starting, or too long under way: nothing was done, and now it may be in time.
            if "Untimely" not in error.message:
                raise
            return checked(self.ask(command, argument, attachments), self.url)


def checked(reply: dict[str, Any], url: str) -> dict[str, Any]:
    """Return a reply that is no error.

    Raises
    ------
    AuthenticationFailed, SisockdaqError
    """
    result = reply.get("result")
    if result not in _FAILURES | _ERRORS:
        return reply
    data = reply.get("data")
    text = str(data.get("Error", data) if isinstance(data, dict) else data)
    if result == "AuthenticationError":
        raise AuthenticationFailed(f"{url} refuses the request: {text}", remedy=_remedy(text))
    raise SisockdaqError(f"{url}: {text}", remedy=_remedy(text))


def load_calibration(
    path: Path, masks: Sequence[Path] = (), directory: str | None = None
) -> tuple[dict[str, Any], list[Attachment]]:
    """Return a calibration as the server wants it, and its masks.

    Parameters
    ----------
    path : Path
        The calibration's JSON.
    masks : sequence of Path
        Mask files, in the order of the calibration's masks; what is left out is looked for where it says.
    directory : str, optional
        Folder of the images, relative to the server's; default: the calibration's own.

    Raises
    ------
    ConfigurationError
        A file is missing or no JSON.
    """
    calibration = _json(path)
    if directory is not None:
        calibration["Directory"] = directory.split("/")
    entries = calibration.get("Masks", [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise ConfigurationError(f"{path}: Masks is not a list of objects")
    if len(masks) > len(entries):
        raise ConfigurationError(f"{path} has {len(entries)} masks, {len(masks)} were given")
    attachments = []
    for number, entry in enumerate(entries):
        wanted = masks[number] if number < len(masks) else _beside(path, str(entry.get("MaskFile", "")))
        entry["MaskFile"] = str(wanted)
        content = _bytes(wanted, f"name the file of mask {number}: saxsleash new {path} MASK… DIRECTORY")
        attachments.append(Attachment(str(wanted), content.decode("latin-1")))
    return calibration, attachments


def load_merge(path: Path) -> tuple[dict[str, Any], list[Attachment]]:
    """Return a merge configuration, and the log files that go along with it.

    Raises
    ------
    ConfigurationError
    """
    conf = _json(path)
    attachments = []
    for table in conf.get("LogDataTables", []):
        for file in table.get("Files", []):
            if local := file.get("LocalPath"):
                text = _bytes(_beside(path, local)).decode(errors="replace")
                attachments.append(Attachment(local, text))
    return conf, attachments


def _remedy(text: str) -> str:
    if "signature" in text:
        return "the network file must be that of the server's machine"
    if "Untimely" in text:
        return "the clocks differ, or the server has only just started: try again"
    if "Unsigned" in text:
        return "leave out --compatible: this server wants attachments signed"
    if "unexpected" in text:
        return "an original server: add --compatible"
    return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(_bytes(path))
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise ConfigurationError(f"{path} is not an object")
    return said


def _beside(path: Path, name: str) -> Path:
    """Return a file that another one names: from the working directory, else from beside that one."""
    here = Path(name)
    return here if here.is_file() or here.is_absolute() else path.parent / here


def _bytes(path: Path, remedy: str = "") -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from None

"""What SAXSdog's programs say to each other: signed requests with attachments, replies, and news of files.

Frame 0 of a request is JSON ``{"command", "argument", "time", "sign"}``, the others are JSON ``{"filename", "data"}``.
The signature covers frame 0 only, and nothing stops a replay. So the strict mode here adds a key ``attachments`` to
frame 0, the SHA-512 of each further frame, which the signature then covers; attachments without it are refused, and so
is a request that was seen before. A strict server understands old clients in all that needs no attachment.

Pure: frames in, frames out; the clock is given. Whatever arrives, `Guard.read` returns a request or raises
`RequestRefused`, which holds the reply.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sisockdaq.errors import SisockdaqError
from sisockdaq.saxsdog.replay import ReplayMemory

__all__ = [
    "COMMANDS",
    "WINDOW",
    "Attachment",
    "Guard",
    "Request",
    "RequestRefused",
    "encode",
    "failure",
    "new_file_message",
    "read_new_file",
    "read_reply",
    "signature",
    "signed_request",
]

COMMANDS = (
    "close", "abort", "new", "get", "plot", "plotdata", "readdir", "stat", "listdir", "fileslist", "mergedata",
    "getmergedata", "mergestat",
)  # fmt: skip

WINDOW = 900.0
"""How far the time of a request may be from the server's [s]."""

MOST_BYTES = 64 * 2**20
"""Longest request that is read, with its attachments."""

MOST_ATTACHMENTS = 64

_KEYS = {"command", "argument", "time", "sign", "attachments"}


class RequestRefused(SisockdaqError):
    """A request is not served; ``reply`` is what the client gets."""

    uri = "sisockdaq.error.saxsdog_request"

    def __init__(self, result: str, error: str, *, plain: bool = False) -> None:
        super().__init__(f"{result}: {error}")
        self.reply: dict[str, Any] = {"result": result, "data": error if plain else {"Error": error}}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a request."""

    filename: str
    data: str

    @property
    def bytes(self) -> bytes:
        """The content of a binary file: each character was one byte.

        Raises
        ------
        ValueError
            A character is none of latin-1.
        """
        try:
            return self.data.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ValueError(f"{self.filename}: character {error.start} is no byte") from None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may be served."""

    command: str
    argument: dict[str, Any]
    attachments: tuple[Attachment, ...] = ()


def signature(request: dict[str, Any], secret: str) -> str:
    """Return the signature of a request, whatever its ``sign`` holds now."""
    text = json.dumps({**request, "sign": ""}, sort_keys=True)
    return hashlib.sha512(text.encode() + secret.encode()).hexdigest()


def signed_request(
    command: str,
    argument: dict[str, Any],
    secret: str,
    attachments: Sequence[Attachment] = (),
    *,
    strict: bool = True,
    now: float | None = None,
) -> list[bytes]:
    """Return the frames of a request.

    Parameters
    ----------
    command, argument, secret
        As in the contract.
    attachments : sequence of Attachment
    strict : bool
        Whether the signature covers the attachments; the original server refuses such requests.
    now : float, optional
        Time of the request [UNIX s].
    """
    further = [json.dumps({"filename": one.filename, "data": one.data}).encode() for one in attachments]
    request: dict[str, Any] = {"command": command, "argument": argument, "time": time.time() if now is None else now}
    if strict and further:
        request["attachments"] = [_digest(frame) for frame in further]
    request["sign"] = signature(request, secret)
    return [json.dumps(request).encode(), *further]


class Guard:
    """Who may ask a server: reads requests, and refuses those that are malformed, forged, late or repeated.

    Parameters
    ----------
    secret : str
    strict : bool
        Whether attachments must be signed, and replays are refused.
    clock : callable
    most_bytes : int
        Longest request.
    """

    def __init__(
        self,
        secret: str,
        *,
        strict: bool = True,
        clock: Callable[[], float] = time.time,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        if not secret:
            raise ValueError("an empty secret lets everybody in")
        self._secret = secret
        self._clock = clock
        self._most_bytes = most_bytes
        self._memory = ReplayMemory(WINDOW, since=clock()) if strict else None

    def read(self, frames: Sequence[bytes]) -> Request:
        """Return the request.

        Raises
        ------
        RequestRefused
        """
        if not frames or sum(map(len, frames)) > self._most_bytes:
            raise RequestRefused("ValueError in request", f"a request has at most {self._most_bytes} bytes")
        said = _checked(_object(frames[0], "request"))
        try:
            self._authenticate(said, frames[1:])
        except RecursionError:
            raise RequestRefused("ValueError in request", "request: nested too deep") from None
        return Request(said["command"], said.get("argument", {}), tuple(map(_attachment, frames[1:])))

    def _authenticate(self, said: dict[str, Any], further: Sequence[bytes]) -> None:
        now, stamp = self._clock(), float(said["time"])
        if not abs(stamp - now) < WINDOW:
            raise _untrusted("Untimely request.")
        if not hmac.compare_digest(_bytes(said["sign"]), signature(said, self._secret).encode()):
            raise _untrusted("Wrong signature.")
        if "attachments" in said and said["attachments"] != [_digest(frame) for frame in further]:
            raise _untrusted("Wrong signature of an attachment.")
        if self._memory is None:
            return
        if further and "attachments" not in said:
            raise _untrusted("Unsigned attachments.")
        if self._memory.too_old(stamp):
            raise _untrusted("Untimely request.")
        if not self._memory.admit(said["sign"], stamp, now):
            raise _untrusted("Replayed request.")


def encode(reply: dict[str, Any]) -> bytes:
    """Return a reply's frame; numbers that are none are said as ``NaN``, as Python's programs read and write them."""
    return json.dumps(reply).encode()


def failure(kind: str, error: object) -> dict[str, Any]:
    """Return the reply for an error."""
    return {"result": kind, "data": {"Error": " ".join(str(error).split())}}


def read_reply(frame: bytes) -> dict[str, Any]:
    """Return a reply's object.

    Raises
    ------
    ValueError
        It is not the reply of a SAXSdog server.
    """
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        raise ValueError("the reply is not JSON") from None
    # The original answers `getmergedata` with {} while there is nothing.
    if not isinstance(said, dict) or (said and not isinstance(said.get("result"), str)):
        raise ValueError("the reply has no result")
    return said


def new_file_message(path: str) -> bytes:
    """Return what a feeder publishes for a file."""
    return json.dumps({"command": "new file", "argument": path}).encode()


def read_new_file(frame: bytes) -> str | None:
    """Return the path that a feeder names, or None for anything else."""
    try:
        said = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("command") != "new file":
        return None
    path = said.get("argument")
    return path if isinstance(path, str) and path and "\0" not in path else None


def _untrusted(why: str) -> RequestRefused:
    return RequestRefused("AuthenticationError", repr(why))


def _digest(frame: bytes) -> str:
    return hashlib.sha512(frame).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _object(frame: bytes, what: str) -> Any:
    try:
        return json.loads(frame)
    except RecursionError:
        raise RequestRefused("ValueError in request", f"{what}: nested too deep") from None
    except ValueError as error:
        raise RequestRefused("ValueError in request", f"{what}: {error}") from None


def _checked(said: Any) -> dict[str, Any]:
    """Return a request of the right form."""
    problem = _problem(said)
    if problem:
        raise RequestRefused("ValidationError in request", problem, plain=True)
    return dict(said)


def _problem(said: Any) -> str:
    if not isinstance(said, dict):
        return "a request is an object with command, argument, time and sign"
    missing = [key for key in ("command", "time", "sign") if key not in said]
    if missing:
        return f"{missing[0]!r} is a required property"
    if extra := sorted(set(said) - _KEYS):
        return f"{extra[0]!r} was unexpected"
    if said["command"] not in COMMANDS:
        return f"{said['command']!r} is not one of {list(COMMANDS)!r}"
    if not isinstance(said.get("argument", {}), dict):
        return "argument is not an object"
    if not _is_time(said["time"]):
        return "time is not a number"
    if not isinstance(said["sign"], str):
        return "sign is not a string"
    return "" if isinstance(said.get("attachments", []), list) else "attachments is not a list"


def _is_time(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _attachment(frame: bytes) -> Attachment:
    said = _object(frame, "attachment")
    if not isinstance(said, dict) or not all(isinstance(said.get(key), str) for key in ("filename", "data")):
        raise RequestRefused("ValueError in request", "an attachment is an object with filename and data")
    return Attachment(said["filename"], said["data"])

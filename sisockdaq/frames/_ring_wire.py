"""Messages between the two ends of a ring, over a SOCK_SEQPACKET unix socket.

A message is a 16-byte head (kind, flag, position in the consumer's queue) and a JSON body. A body too large for one
datagram travels as a sealed memory file whose descriptor rides along. Nothing here blocks: a message that does not go
out at once raises `BlockingIOError`, and the sender decides what that means.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from sisockdaq.frames.bus import Request
from sisockdaq.frames.messages import Arm, Attached, Description, Detached, End, Mark, Report, Settled, Start, Stop

__all__ = [
    "PROTOCOL",
    "Kind",
    "Message",
    "mark_message",
    "parse_mark",
    "parse_request",
    "receive",
    "request_message",
    "send",
    "sockets_of",
]

PROTOCOL = 1
"""Version of messages and shared memory; both ends must have the same."""

_HEAD = struct.Struct("<BB6xQ")
_IN_FILE = 1
_LARGEST_BODY = 32 * 1024
_LARGEST_MESSAGE = 64 * 1024
_MOST_DESCRIPTORS = 4

_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008
"""F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE (linux/fcntl.h)."""


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1
    REFUSED = 2
    BYE = 3
    ATTACHED = 10
    START = 11
    END = 12
    SETTLED = 13
    DETACHED = 14
    ARM = 20
    STOP = 21
    REPORT = 22


@dataclass(slots=True)
class Message:
    """One message; ``position`` is the number of frames that come before it in the consumer's queue."""

    kind: Kind
    body: dict[str, Any]
    position: int = 0
    descriptors: list[int] = field(default_factory=list)


_MARKS: dict[type, Kind] = {
    Start: Kind.START,
    End: Kind.END,
    Settled: Kind.SETTLED,
    Attached: Kind.ATTACHED,
    Detached: Kind.DETACHED,
}
_REQUESTS: dict[type, Kind] = {Arm: Kind.ARM, Stop: Kind.STOP, Report: Kind.REPORT}


def mark_message(mark: Mark) -> Message:
    """Return the message that carries a mark."""
    return Message(_MARKS[type(mark)], asdict(mark))


def request_message(request: Request) -> Message:
    """Return the message that carries a request."""
    return Message(_REQUESTS[type(request)], asdict(request))


def parse_mark(message: Message) -> Mark:
    """Return the mark in a message; raise `ValueError` where there is none."""
    body = message.body
    if message.kind is Kind.ATTACHED:
        description = {**body["description"], "shape": tuple(body["description"]["shape"])}
        acquisition = Start(**body["acquisition"]) if body["acquisition"] else None
        return Attached(Description(**description), int(body["epoch"]), acquisition)
    for mark, kind in _MARKS.items():
        if kind is message.kind:
            return mark(**body)  # type: ignore[no-any-return]
    raise ValueError(f"message {message.kind.name} carries no mark")


def parse_request(message: Message) -> Request:
    """Return the request in a message; raise `ValueError` where there is none."""
    for request, kind in _REQUESTS.items():
        if kind is message.kind:
            return request(**message.body)  # type: ignore[no-any-return]
    raise ValueError(f"message {message.kind.name} carries no request")


def send(connection: socket.socket, message: Message) -> None:
    """Send a message whole or not at all; raise `OSError` (`BlockingIOError` when there is no room)."""
    body = json.dumps(message.body, separators=(",", ":"), default=_number).encode()
    descriptors, spare = list(message.descriptors), -1
    flag = 0
    if len(body) > _LARGEST_BODY:
        spare, body, flag = _body_file(body), b"", _IN_FILE
        descriptors.append(spare)
    try:
        data = _HEAD.pack(message.kind, flag, message.position) + body
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        if descriptors:
            socket.send_fds(connection, [data], descriptors, flags)
        else:
            connection.send(data, flags)
    finally:
        if spare >= 0:
            os.close(spare)


def receive(connection: socket.socket) -> Message | None:
    """Return the next message, or None at the end of the connection.

    Raises
    ------
    BlockingIOError
        When none has come yet.
    ValueError
        When the message is not one of ours.
    """
    data, descriptors, _, _ = socket.recv_fds(
        connection, _LARGEST_MESSAGE, _MOST_DESCRIPTORS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        _close_all(descriptors)
        return None
    try:
        kind, flag, position = _HEAD.unpack_from(data)
        body = _read_body(descriptors.pop()) if flag == _IN_FILE else data[_HEAD.size :]
        return Message(Kind(kind), dict(json.loads(body)), position, descriptors)
    except (struct.error, ValueError, TypeError, IndexError, OSError) as error:
        _close_all(descriptors)
        raise ValueError(f"not a message of the frame plane: {error}") from error


def sockets_of(path: os.PathLike[str]) -> socket.socket:
    """Return a new non-blocking socket of the kind that rings use; `path` is checked for length."""
    if len(os.fsencode(path)) > 107:
        raise ValueError(f"the path of the socket is longer than 107 bytes: {os.fspath(path)}")
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _number(value: Any) -> Any:
    """Let numpy's scalars, which counters easily become, travel as the numbers they are."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} in a mark or request cannot travel as JSON")


def _body_file(body: bytes) -> int:
    descriptor = os.memfd_create("sisockdaq-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as stream:
        stream.write(body)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _read_body(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        stream.seek(0)
        return stream.read()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

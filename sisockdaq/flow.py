"""Sending progressive results no faster than the transport takes them.

WAMP's progressive results have no flow control: what the router does not take yet piles up in this process. `send`
waits while more than `WINDOW` bytes are waiting in the session's transport, so a reply of any size costs a few chunks
of memory here, and other calls to the node are answered in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from sisockdaq.errors import DeadlineExceeded
from sisockdaq.wire import CHUNK_BYTES

__all__ = ["WINDOW", "buffered", "send"]

WINDOW = 4 * CHUNK_BYTES
"""Bytes that may wait in the transport before the next chunk is made."""

_POLL = 0.0005
"""Time between two looks at a full transport [s]: a chunk takes about a millisecond on a local socket."""

STALLED_AFTER = 30.0
"""A transport that takes nothing for this long [s] ends the reply with an error."""


def buffered(session: Any) -> int:
    """Return the bytes that wait in the transport of a WAMP session (TCP, unix socket, either under TLS)."""
    waiting = 0
    layer = getattr(session, "_transport", None)
    while layer is not None:
        pending = getattr(layer, "_appSendBuffer", None)  # TLS: not yet encrypted
        if isinstance(pending, list):
            waiting += sum(len(piece) for piece in pending)
        if hasattr(layer, "_tempDataLen"):
            return waiting + len(layer.dataBuffer) - getattr(layer, "offset", 0) + int(layer._tempDataLen)
        layer = getattr(layer, "transport", None)
    return waiting


@inlineCallbacks
def send(
    session: Any,
    progress: Callable[[dict[str, Any]], None],
    messages: Iterator[dict[str, Any]],
    *,
    stalled_after: float = STALLED_AFTER,
) -> Any:
    """Send all messages but the last through ``progress``; return (a Deferred of) the last, the call's result.

    Parameters
    ----------
    session : ApplicationSession
        The session that answers the call.
    progress : callable
        ``details.progress`` of the call.
    messages : iterator of dict
        From `wire.messages`.
    stalled_after : float
        Give up when the transport has taken nothing for this long [s].

    Raises
    ------
    DeadlineExceeded
        When the transport is stalled.
    """
    last = next(messages)
    for message in messages:
        progress(last)
        last = message
        level, stalled = buffered(session), 0.0
        while level > WINDOW:
            yield deferLater(reactor, _POLL)
            now = buffered(session)
            stalled = stalled + _POLL if now >= level else 0.0
            level = now
            if stalled >= stalled_after:
                raise DeadlineExceeded(
                    f"the router has taken nothing for {stalled_after:.0f} s; the reply was given up"
                )
    return last

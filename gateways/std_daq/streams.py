"""The Redis streams of std-daq: what happens, as JSON in the field ``json`` of bounded streams.

One thread writes; whoever publishes never waits. While Redis is away, messages wait in a bounded buffer, the oldest are
given up first and counted, and connecting is tried again with growing pauses. Without Redis nothing is kept.

A message with an id of its own is the newest word of its stream: it is said again to a Redis that has lost it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Literal

import orjson
import redis

__all__ = ["Streams"]

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Times between two tries to connect [s]; the last one for ever."""

TIMEOUT = 2.0
"""Longest wait for an answer of Redis [s]."""

BATCH = 100
"""Messages in one round trip."""

_Message = tuple[str, str, bytes, int]


class Streams:
    """Publishes to the streams of one Redis.

    Parameters
    ----------
    url : str or None
        ``redis://…`` or ``unix://…``; None: streams are off.
    shown : str
        The URL as it may be shown: without a password.
    buffer : int
        Messages that wait while Redis is away.
    """

    def __init__(self, url: str | None, *, shown: str = "", buffer: int = 1000) -> None:
        self._url = url
        self._shown = shown
        self._waiting: deque[_Message] = deque()
        self._newest: dict[str, _Message] = {}
        self._buffer = buffer
        self._changed = threading.Condition()
        self._stopping = False
        self._published = self._dropped = 0
        self._connections = 0
        self._reason = "not connected yet"
        self._up = False
        self._thread = threading.Thread(target=self._run, name="redis-streams", daemon=True)
        if url is not None:
            self._thread.start()

    def publish(self, stream: str, value: Any, *, keep: int, message_id: str = "*") -> None:
        """Add a value to a stream that keeps about `keep` of them; waits for nothing. For any thread."""
        if self._url is None:
            return
        message = (stream, message_id, orjson.dumps(value), keep)
        with self._changed:
            if len(self._waiting) >= self._buffer:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(message)
            if message_id != "*":
                self._newest[stream] = message
            self._changed.notify()

    def status(self) -> dict[str, Any]:
        """Return the state (off, up, away), and what became of the messages."""
        with self._changed:
            state: Literal["off", "up", "away"] = "off" if self._url is None else "up" if self._up else "away"
            message = {
                "off": "streams are off: the site has no Redis",
                "up": f"publishing to {self._shown}",
                "away": f"{self._shown} cannot be reached: {self._reason}",
            }[state]
            return {
                "state": state,
                "message": message,
                "published": self._published,
                "dropped": self._dropped,
                "waiting": len(self._waiting),
            }

    def close(self, deadline: float = 2.0) -> None:
        """Publish what waits, as far as that goes at once, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(deadline)

    # The thread.

    def _run(self) -> None:
        assert self._url is not None
        failures = 0
        while not self._over():
            server = redis.Redis.from_url(
                self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, client_name="sisockdaq-std-daq",
                redis_connect_func=self._connected,
            )  # fmt: skip
            try:
                server.ping()
                failures = 0
                self._note(up=True)
                self._serve(server)
            except (redis.RedisError, OSError) as error:
                self._note(up=False, reason=str(error))
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
            finally:
                server.close()

    def _connected(self, connection: Any) -> None:
        """Count connections: redis-py makes a new one by itself when a Redis has died and is back already."""
        self._connections += 1
        connection.on_connect()

    def _serve(self, server: Any) -> None:
        told = 0
        while True:
            while told != self._connections:
                told = self._connections
                self._say_again(server)
            with self._changed:
                if not self._changed.wait_for(lambda: self._waiting or self._stopping, TIMEOUT):
                    batch: list[_Message] = []
                elif self._waiting:
                    batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                else:
                    return
            if not batch:
                server.ping()  # learns of its end while nothing happens
                continue
            try:
                self._send(server, batch)
            except BaseException:
                self._put_back(batch)
                raise

    def _say_again(self, server: Any) -> None:
        with self._changed:
            newest = [message for message in self._newest.values() if message not in self._waiting]
        for stream, message_id, body, keep in newest:
            if not server.xrange(stream, message_id, message_id):
                self._add_later(server, stream, message_id, body, keep)

    def _add_later(self, server: Any, stream: str, message_id: str, body: bytes, keep: int) -> Any:
        """Add a message whose id may not be above the last one: another's, or of a clock that went back."""
        for chosen in (message_id, "*"):
            if server.xrange(stream, message_id, message_id):
                return None
            try:
                return server.xadd(stream, {"json": body}, id=chosen, maxlen=keep, approximate=True)
            except redis.ResponseError as error:
                refusal = error
        return refusal

    def _send(self, server: Any, batch: list[_Message]) -> None:
        with server.pipeline(transaction=False) as pipeline:
            for stream, message_id, body, keep in batch:
                pipeline.xadd(stream, {"json": body}, id=message_id, maxlen=keep, approximate=True)
            answers = pipeline.execute(raise_on_error=False)
        refused = 0
        for (stream, message_id, body, keep), answer in zip(batch, answers, strict=True):
            if isinstance(answer, redis.ResponseError) and message_id != "*":
                answer = self._add_later(server, stream, message_id, body, keep)
            if isinstance(answer, redis.ConnectionError | redis.TimeoutError):
                raise answer
            if isinstance(answer, Exception):
                refused += 1
                self._note(up=True, reason=str(answer))
        with self._changed:
            self._published += len(batch) - refused
            self._dropped += refused

    def _put_back(self, batch: list[_Message]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            while len(self._waiting) > self._buffer:
                self._waiting.popleft()
                self._dropped += 1

    def _over(self) -> bool:
        with self._changed:
            return self._stopping

    def _note(self, *, up: bool, reason: str = "") -> None:
        with self._changed:
            self._up, self._reason = up, reason

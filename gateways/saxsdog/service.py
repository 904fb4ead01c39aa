"""The sockets of a SAXSdog server: commands over REQ/REP, news of files over PUB/SUB, a thread for each.

Whatever arrives gets a reply, and the server goes on. Files of which the feeder tells while the thread is late wait in
ZeroMQ, at most `NEWS_WAITING` of them; a queue that is full counts what it drops.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import zmq
from sisockdaq.gateways.saxsdog.server import Server
from twisted.logger import Logger

from sisockdaq.errors import PortTaken
from sisockdaq.saxsdog.wire import MOST_BYTES, Guard, RequestRefused, encode, failure, read_new_file

__all__ = ["Service"]

NEWS_WAITING = 100_000

_LOOK = 200
"""Longest time until a thread sees that it is to end [ms]."""

_JOIN = 15.0
"""Longest wait for a thread's end: an abort waits for the pictures in hand [s]."""

_log = Logger("sisockdaq.saxsdog")


class Service:
    """A server at its sockets.

    Parameters
    ----------
    server : Server
    guard : Guard
    address : str
        Where commands come in, as ``tcp://127.0.0.1:9723``; port ``*`` lets the system choose.
    feeder : str, optional
        Address of a feeder.

    Attributes
    ----------
    address : str
        Where it listens.
    requests, refused : int
        Requests that came, and those of them that were refused.
    news_unread : int
        Messages of the feeder that were none.
    """

    def __init__(self, server: Server, guard: Guard, address: str, feeder: str | None = None) -> None:
        self.server = server
        self.address = address
        self.requests = self.refused = self.news_unread = 0
        self._guard = guard
        self._feeder = feeder
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen.

        Raises
        ------
        PortTaken
        """
        context: Any = zmq.Context.instance()
        commands = context.socket(zmq.REP)
        commands.set(zmq.LINGER, 1000)
        # A longer frame ends the connection of who sends it, before it is in memory.
        commands.set(zmq.MAXMSGSIZE, 2 * MOST_BYTES)
        try:
            commands.bind(self.address)
        except zmq.ZMQError as error:
            commands.close(0)
            raise PortTaken(
                f"cannot listen at {self.address}: {error.strerror}", remedy="end what holds it, or choose another port"
            ) from None
        self.address = commands.get(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self._begin(self._serve, commands)
        if self._feeder is not None:
            news = context.socket(zmq.SUB)
            news.set(zmq.LINGER, 0)
            news.set(zmq.RCVHWM, NEWS_WAITING)
            news.set(zmq.MAXMSGSIZE, 2**20)
            news.set(zmq.SUBSCRIBE, b"")
            news.connect(self._feeder)
            self._begin(self._hear, news)

    def stop(self) -> None:
        """Listen no more, and end the queue; may take as long as the pictures in hand."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN)
        self.server.shut_down()

    @property
    def runs(self) -> bool:
        """Whether its threads are alive."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def about(self) -> str:
        """Return one line for people: where it listens, and how it goes."""
        numbers = self.server.summary()
        if "processed" not in numbers:
            return f"{self.address}, no queue{self._refusals()}"
        text = f"{self.address}: {numbers['processed']} pictures, {numbers['waiting']} waiting"
        if numbers["rate"] >= 1:
            text += f", {numbers['rate']:.0f}/s"
        for what in ("failed", "dropped"):
            if numbers[what]:
                text += f", {numbers[what]} {what}"
        for why in ("last_failure", "problem"):
            if numbers[why]:
                text += f" ({numbers[why]})"
        return text + self._refusals()

    def counters(self) -> dict[str, Any]:
        """Return all counters."""
        return {
            **self.server.summary(),
            "requests": self.requests,
            "refused": self.refused,
            "news_unread": self.news_unread,
        }

    def reply(self, frames: list[bytes]) -> bytes:
        """Return the reply to a request."""
        self.requests += 1
        try:
            request = self._guard.read(frames)
        except RequestRefused as refusal:
            self.refused += 1
            return encode(refusal.reply)
        try:
            return encode(self.server.answer(request))
        except Exception as error:  # a mistake of ours is the client's to read too, and ends no server
            _log.failure("{command} failed", command=request.command)
            return encode(failure("ServerError", error))

    def _refusals(self) -> str:
        return f", {self.refused} requests refused" if self.refused else ""

    def _begin(self, work: Any, socket: Any) -> None:
        thread = threading.Thread(target=work, args=(socket,), name=f"saxsdog{work.__name__}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, socket: Any) -> None:
        with socket:
            while not self._stop.is_set():
                if socket.poll(_LOOK):
                    answer = self.reply(socket.recv_multipart())
                    with suppress(zmq.ZMQError):
                        socket.send(answer)

    def _hear(self, socket: Any) -> None:
        with socket:
            while not self._stop.is_set():
                if not socket.poll(_LOOK):
                    continue
                frames = socket.recv_multipart()
                path = read_new_file(frames[0]) if len(frames) == 1 else None
                if path is None:
                    self.news_unread += 1
                    continue
                try:
                    self.server.new_file(path)
                except Exception:
                    _log.failure("{path} was not queued", path=path)

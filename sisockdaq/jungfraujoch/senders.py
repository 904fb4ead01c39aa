"""The sockets of the senders: what each has said, and whether it is there. For one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from sisockdaq.errors import ConfigurationError
from sisockdaq.jungfraujoch.dialect import Header

__all__ = ["Sender", "open_senders"]


@dataclass(slots=True)
class Sender:
    """A PULL socket, connected to one sender.

    Attributes
    ----------
    peers : int
        Connections that are up.
    started, ended : bool
        Whether its start and end message of the series under way have come.
    held : Header or None
        A start message of the next series, which waits until the others have ended theirs; the socket is not read
        meanwhile.
    """

    address: str
    socket: Any
    monitor: Any
    peers: int = 0
    started: bool = False
    ended: bool = False
    held: Header | None = None

    def look(self) -> None:
        """Take note of connections that came and went."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.peers += 1
            elif event == zmq.EVENT_DISCONNECTED:
                self.peers = max(0, self.peers - 1)

    def close(self) -> None:
        """Let go of the sockets."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)


def open_senders(context: zmq.Context[Any], addresses: list[str], watermark: int) -> list[Sender]:
    """Connect to all senders; they need not be there yet.

    Raises
    ------
    ConfigurationError
        When an address is none.
    """
    senders: list[Sender] = []
    try:
        for address in addresses:
            socket = context.socket(zmq.PULL)
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            senders.append(Sender(address, socket, monitor))
            socket.setsockopt(zmq.RCVHWM, watermark)
            socket.connect(address)
    except zmq.ZMQError as error:
        for sender in senders:
            sender.close()
        raise ConfigurationError(
            f"cannot connect to “{address}”: {error.strerror}", remedy="an address like tcp://host:5400"
        ) from error
    return senders

"""What the stream writer gives to others while it writes: messages as they came, and word of finalised files.

Nothing here waits for a reader: what nobody takes is dropped and counted.
"""

from __future__ import annotations

from typing import Any

import zmq

from sisockdaq.errors import PortTaken
from sisockdaq.frames.stream2 import EndMessage, StartMessage
from sisockdaq.jungfraujoch.options import WriterOptions
from sisockdaq.jungfraujoch.republish import Republisher

__all__ = ["Outlets"]


class Outlets:
    """The sockets that are bound, as the options want them.

    Parameters
    ----------
    context : zmq.Context
    options : WriterOptions

    Attributes
    ----------
    notices_dropped : int
        Messages about files that could not be sent.

    Raises
    ------
    PortTaken
        When a port is in use.
    """

    def __init__(self, context: zmq.Context[Any], options: WriterOptions) -> None:
        self.notices_dropped = 0
        self._notices: Any = None
        self._republisher: Republisher | None = None
        if options.republish is not None:
            self._republisher = Republisher(context, options.republish, options.republish_watermark)
        if options.notices is not None:
            self._notices = context.socket(zmq.PUB)
            try:
                self._notices.bind(options.notices)
            except zmq.ZMQError as error:
                self.close()
                raise PortTaken(
                    f"notification address {options.notices} cannot be bound: {error.strerror}",
                    remedy="choose another port (-f)",
                ) from error

    @property
    def republish_address(self) -> str | None:
        """Where messages are passed on."""
        return self._republisher.address if self._republisher is not None else None

    @property
    def notices_address(self) -> str | None:
        """Where finalised files are told of."""
        return self._notices.getsockopt_string(zmq.LAST_ENDPOINT) if self._notices is not None else None

    @property
    def tells(self) -> bool:
        """Whether finalised files are told of."""
        return self._notices is not None

    def retry(self) -> float | None:
        """Try again what could not be passed on; return how soon to come back [s]."""
        return self._republisher.retry() if self._republisher is not None else None

    def pass_on(self, frame: Any, message: Any) -> None:
        """Republish a message as it came."""
        if self._republisher is None:
            return
        if isinstance(message, StartMessage | EndMessage):
            self._republisher.mark(frame)
        else:
            self._republisher.image(frame)

    def tell(self, notice: bytes) -> None:
        """Tell of a finalised file."""
        try:
            self._notices.send(notice, zmq.NOBLOCK)
        except zmq.Again:
            self.notices_dropped += 1

    def counts(self) -> dict[str, int]:
        """Return what was passed on and what was dropped."""
        republisher = self._republisher
        return {
            "republished": republisher.sent if republisher is not None else 0,
            "republish_dropped": republisher.dropped if republisher is not None else 0,
            "notices_dropped": self.notices_dropped,
        }

    def close(self) -> None:
        """Let go of the ports."""
        if self._republisher is not None:
            self._republisher.close()
        if self._notices is not None:
            self._notices.close(linger=1000)

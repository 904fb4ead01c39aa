"""Live images in a browser: JPEG after JPEG in one answer that has no end (``multipart/x-mixed-replace``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from sisockdaq.gateways.std_daq.images import encode
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from sisockdaq.gateways.std_daq.live import Live, Shown

    from sisockdaq.gateway import Gateway

__all__ = ["Viewer"]

BOUNDARY = "frame"

LARGEST = 1024
"""Longest edge of a shown image [pixels]; larger ones are thinned."""


@implementer(IPushProducer)
class Viewer:
    """One browser that watches; an image that comes while it is busy with another is left out.

    Parameters
    ----------
    request : twisted.web.server.Request
    live : Live
    gateway : Gateway
    """

    def __init__(self, request: Any, live: Live, gateway: Gateway) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.stopProducing())
        self._request, self._live, self._gateway = request, live, gateway
        self._busy = self._paused = self._over = False
        request.setHeader("content-type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        request.setHeader("cache-control", "no-store")
        request.notifyFinish().addBoth(lambda _: self.stopProducing())
        request.registerProducer(self, True)
        request.write(f"--{BOUNDARY}\r\n".encode())  # headers go out now, whether there are images or not
        live.watch(self, self._shown)

    def _shown(self, shown: Shown) -> None:
        if self._busy or self._paused or self._over:
            return
        self._busy = True
        _, pixels, fill = shown
        self._gateway.compute(_jpeg, pixels, fill).addCallbacks(self._write, lambda _: None).addBoth(self._free)

    def _write(self, picture: bytes) -> None:
        if not self._over:
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            self._request.write(head.encode() + picture + f"\r\n--{BOUNDARY}\r\n".encode())

    def _free(self, _: Any) -> None:
        self._busy = False

    def pauseProducing(self) -> None:  # noqa: N802 - twisted's name
        """Leave images out: the connection is full."""
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802 - twisted's name
        """Show images again."""
        self._paused = False

    def stopProducing(self) -> None:  # noqa: N802 - twisted's name
        """Forget the browser."""
        if not self._over:
            self._over = True
            self._live.leave(self)


def _jpeg(pixels: npt.NDArray[Any], fill: float | None) -> bytes:
    step = max(1, -(-max(pixels.shape) // LARGEST))
    return encode(pixels[::step, ::step], "jpeg", fill)

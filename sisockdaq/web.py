"""HTTP as gateways speak it, on top of twisted.web: limits, origins, JSON errors, large bodies in pieces.

- A body above the limit is refused with 413 and not kept; one that goes on and on, or a silence, ends the connection.
- What is refused here, before any handler, is answered as JSON: ``{"error": …}``, or what ``refusal`` makes of it.
- ``OPTIONS`` is answered for every known path. Only pages of the configured origins may read answers in a browser; by
  default those of this machine.
- A server that listens on this machine only answers to this machine's names only (`own_hosts`): a page elsewhere may
  let its own name lead here, and would then be of the same origin.
- A request may take as long as it wants: only connections on which nothing is asked are closed.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site
from zope.interface import implementer

__all__ = ["JSON", "LOOPBACK", "HttpSite", "own_hosts", "send"]

JSON = "application/json"

LOOPBACK = tuple(
    f"{scheme}://{host}{port}"
    for scheme in ("http", "https")
    for host in ("localhost", "127.0.0.1", "[[]::1]")
    for port in ("", ":*")
)
"""Origins of pages that this machine serves."""

_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")

_IDLE = 75.0
"""Time that a connection may be silent between two requests [s]; longer than the interval at which Grafana asks."""

_PATIENCE = 8
"""How many times the limit a refused body may be before its sender is cut off without an answer."""

_METHODS = ("GET", "HEAD", "POST")

_ALLOWED_HEADERS = "accept, content-type, authorization, x-grafana-org-id, x-panel-id, x-dashboard-id"

_log = Logger("sisockdaq.web")

_Site: Any = Site
_TwistedRequest: Any = Request
"""Twisted's classes, which have no types."""

Seen = Callable[[str, int, float], None]
"""Told of each answer: the route (or "other"), the status, and the seconds that it took."""


class HttpSite(_Site):  # type: ignore[misc]
    """A server of a klein application.

    Parameters
    ----------
    app : Klein
    origins : sequence of str
        Patterns of origins whose pages may read answers.
    body_limit : int
        Largest body of a request [bytes].
    seen : callable, optional
    refusal : callable, optional
        Makes the body of what is refused before any handler, from its reason.
    hosts : sequence of str, optional
        Names of this server, as `own_hosts` returns them; requests to another are refused with 403. None: any name.
    """

    def __init__(
        self,
        app: Klein,
        *,
        origins: Sequence[str],
        body_limit: int,
        seen: Seen | None = None,
        refusal: Callable[[str], Any] | None = None,
        hosts: Sequence[str] | None = None,
    ) -> None:
        def request(channel: HTTPChannel, queued: Any = None) -> _Request:
            return _Request(self, channel)

        super().__init__(app.resource(), requestFactory=request, timeout=_IDLE)
        self.app = app
        self.origins = tuple(origins)
        self.body_limit = body_limit
        self.seen = seen
        self.refusal = refusal or (lambda reason: {"error": reason})
        self.hosts = hosts
        self.displayTracebacks = False

    def log(self, request: Any) -> None:
        """Tell of an answer; a line a request is for who looks for one (log level debug)."""
        took = time.monotonic() - request.begun
        _log.debug(
            "{method} {path} {code} in {took:.1f} ms",
            method=request.method.decode("ascii", "replace"), path=request.path.decode("ascii", "replace"),
            code=request.code, took=1e3 * took,
        )  # fmt: skip
        if self.seen is not None:
            self.seen(self.route_of(request), request.code, took)

    def route_of(self, request: Any) -> str:
        """Return a path that the application has, or "other": a bounded set of words."""
        path = request.path.decode("ascii", "replace")
        return path if self.allowed(path) else "other"

    def allowed(self, path: str) -> list[str]:
        """Return the methods that a path takes; none where there is no such path."""
        found = self.app.url_map.bind("gateway").allowed_methods(path)
        return sorted(found)

    def may_read(self, origin: str) -> bool:
        """Whether pages of an origin may read answers."""
        return any(fnmatch.fnmatchcase(origin.lower(), pattern.lower()) for pattern in self.origins)

    def is_called(self, host: str) -> bool:
        """Whether this server answers to a name."""
        return self.hosts is None or host.lower().rstrip(".") in self.hosts


def own_hosts(interface: str, others: Iterable[str] = ()) -> tuple[str, ...] | None:
    """Return the names that a server at an address answers to; None, any name, where others than this machine reach it.

    Parameters
    ----------
    interface : str
        The address that it listens on.
    others : iterable of str
        Names beside those of this machine, without a port; with one of them, names count at every address.
    """
    given = tuple(name.lower() for name in others)
    try:
        local = interface == "localhost" or ipaddress.ip_address(interface).is_loopback
    except ValueError:
        local = False
    return (*_OWN_HOSTS, interface.lower(), *given) if local or given else None


class _Request(_TwistedRequest):  # type: ignore[misc]
    """Refuses bodies that are too large and names that are not this server's, and answers OPTIONS."""

    def __init__(self, site: HttpSite, channel: HTTPChannel) -> None:
        super().__init__(channel)
        self._site = site
        self._length = 0
        self._refused = False
        self.begun = time.monotonic()

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - twisted's name
        """Look at the announced length before anything is read."""
        self.begun = time.monotonic()
        if length is not None and length > self._site.body_limit:
            self._refused, length = True, 0
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - twisted's name
        """Keep what has come, up to the limit."""
        self._length += len(data)
        if self._length > self._site.body_limit:
            self._refused = True
        if self._length > _PATIENCE * self._site.body_limit:
            self.channel.loseConnection()
        if not self._refused:
            super().handleContentChunk(data)

    def process(self) -> None:
        """Answer what needs no handler; pass on the rest."""
        self.setHeader(b"server", b"sisockdaq")
        self.setHeader(b"content-type", JSON.encode())
        self._say_origin()
        path = self.path.decode("ascii", "replace")
        host = self.getRequestHostname().decode("ascii", "replace")
        if not self._site.is_called(host):
            self._refuse(403, f'this server is not called "{host[:100]}"; its option `hosts` adds a name')
        elif self._refused:
            self.setHeader(b"connection", b"close")
            self._refuse(413, f"the body is larger than {self._site.body_limit} bytes")
        elif self.method == b"OPTIONS":
            self._answer_options(path)
        else:
            super().process()

    def _say_origin(self) -> None:
        origin = self.getHeader("origin")
        self.setHeader(b"vary", b"Origin")
        if origin and self._site.may_read(origin):
            self.setHeader(b"access-control-allow-origin", origin.encode("ascii", "replace"))

    def _answer_options(self, path: str) -> None:
        allowed = self._site.allowed(path)
        if not allowed and path != "*":
            self._refuse(404, f"there is no {path} here")
            return
        methods = ", ".join([*(allowed or _METHODS), "OPTIONS"]).encode()
        self.setHeader(b"allow", methods)
        self.setHeader(b"access-control-allow-methods", methods)
        self.setHeader(b"access-control-allow-headers", _ALLOWED_HEADERS.encode())
        self.setHeader(b"access-control-max-age", b"600")
        self.setResponseCode(204)
        self.responseHeaders.removeHeader(b"content-type")
        self.finish()

    def _refuse(self, code: int, reason: str) -> None:
        data = orjson.dumps(self._site.refusal(reason))
        self.setResponseCode(code)
        self.setHeader(b"content-length", b"%d" % len(data))
        self.write(data)
        self.finish()


def send(request: Any, pieces: Iterable[bytes], *, content_type: str = JSON) -> Any:
    """Send a body in pieces, each when the connection has taken the one before; return what a handler returns."""
    body = list(pieces)
    gone: Deferred[Any] = request.notifyFinish()
    request.setHeader("content-type", content_type)
    request.setHeader("content-length", str(sum(map(len, body))))
    if request.method == b"HEAD":
        return b""
    producer = _Pieces(request, iter(body))
    gone.addErrback(lambda _: producer.stopProducing())
    request.registerProducer(producer, False)
    return producer.done


@implementer(IPullProducer)
class _Pieces:
    """Hands out a body as it is wanted."""

    def __init__(self, request: Any, pieces: Iterator[bytes]) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.stopProducing())
        self._request = request
        self._pieces = pieces
        self._over = False

    def resumeProducing(self) -> None:  # noqa: N802 - twisted's name
        """Send the next piece."""
        if self._over:
            return
        piece = next(self._pieces, None)
        if piece is not None:
            self._request.write(piece)
            return
        self._over = True
        self._request.unregisterProducer()
        self.done.callback(b"")

    def stopProducing(self) -> None:  # noqa: N802 - twisted's name
        """Forget the rest: the reader has gone."""
        if not self._over:
            self._over = True
            self._pieces = iter(())

"""The HTTP face of the stream writer: what it does, and cancel.

====== =============== =================================================================================
GET    /status         everything (`status`), as JSON
GET    /state          the short form: state, file_prefix, progress, synchronised, message
GET    /logs/N         the last N series that have ended, newest first, failed ones included, with their ledgers
POST   /cancel         close the files of the series under way, readable; answers with the status
====== =============== =================================================================================

Errors are JSON, ``{"error": …}``. A request that comes from a page in a browser (it has an ``Origin``) cannot cancel.
"""

from __future__ import annotations

import json
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.web.server import Site
from werkzeug.exceptions import MethodNotAllowed, NotFound

from sisockdaq.errors import PortTaken
from sisockdaq.jungfraujoch.service import StreamWriter

__all__ = ["listen", "pages"]

_SHORT = ("state", "acquisition_state", "file_prefix", "progress", "synchronised", "desynchronised_by", "message")

_MOST_LOGS = 1000
"""Most series that one call lists."""

_IDLE = 75.0
"""Time that a connection may be silent [s]."""


def listen(reactor: Any, writer: StreamWriter, host: str, port: int) -> Any:
    """Serve the pages; return the listening port.

    Raises
    ------
    PortTaken
    """
    site = Site(pages(writer).resource(), timeout=_IDLE)
    site.displayTracebacks = False
    try:
        return reactor.listenTCP(port, site, interface=host)
    except CannotListenError as error:
        raise PortTaken(
            f"HTTP port {port} on {host} cannot be opened: {error.socketError}", remedy="choose another port (-H)"
        ) from error


def pages(writer: StreamWriter) -> Klein:
    """Return the application."""
    app: Any = Klein()

    def status(request: Any) -> bytes:
        return _answer(request, writer.status())

    def state(request: Any) -> bytes:
        full = writer.status()
        return _answer(request, {key: full[key] for key in _SHORT})

    def logs(request: Any, count: str) -> bytes:
        if not (count.isascii() and count.isdigit() and len(count) < 10):
            return _answer(request, {"error": f"/logs/N takes a number, not {count[:40]}"}, 404)
        return _answer(request, {"logs": writer.log(min(int(count), _MOST_LOGS))})

    def cancel(request: Any) -> Any:
        if request.getHeader("origin"):
            return _answer(request, {"error": "a page in a browser may not cancel"}, 403)
        cancelled: Deferred[dict[str, Any]] = deferToThread(writer.cancel)
        return cancelled.addCallback(lambda full: _answer(request, full))

    def failed(request: Any, failure: Any) -> bytes:
        path = request.path.decode("ascii", "replace")
        if failure.check(NotFound):
            return _answer(
                request, {"error": f"there is no {path[:200]} here; there are /status, /state, /logs/N, /cancel"}, 404
            )
        if failure.check(MethodNotAllowed):
            allowed = ", ".join(sorted(failure.value.valid_methods or ()))
            request.setHeader("allow", allowed)
            return _answer(request, {"error": f"{path[:200]} takes {allowed}"}, 405)
        return _answer(request, {"error": str(failure.value) or "the writer did not answer"}, 500)

    app.route("/status", methods=["GET", "HEAD"])(status)
    app.route("/state", methods=["GET", "HEAD"])(state)
    app.route("/logs/<count>", methods=["GET", "HEAD"])(logs)
    app.route("/cancel", methods=["POST"])(cancel)
    app.handle_errors(Exception)(failed)
    return app  # type: ignore[no-any-return]


def _answer(request: Any, body: dict[str, Any], code: int = 200) -> bytes:
    request.setResponseCode(code)
    request.setHeader("content-type", "application/json")
    request.setHeader("cache-control", "no-store")
    return json.dumps(body, default=str).encode()

"""What the pages read from requests, and what they answer to errors.

Every error is JSON: ``{"error": …, "remedy": …}``. The server itself is `sisockdaq.web`.
"""

from __future__ import annotations

from typing import Any

import orjson
from sisockdaq.gateways.grafana.questions import BadRequest
from twisted.logger import Logger
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from sisockdaq.errors import SisockdaqError

__all__ = ["body_of", "error_body", "parameters_of"]

_log = Logger("sisockdaq.grafana")


def body_of(request: Any) -> Any:
    """Return the decoded JSON body; an empty one is an empty object.

    Raises
    ------
    BadRequest
    """
    raw = request.content.read()
    if not raw.strip():
        return {}
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def parameters_of(request: Any) -> dict[str, list[str]]:
    """Return the query's parameters as text.

    Raises
    ------
    BadRequest
    """
    try:
        return {key.decode(): [value.decode() for value in values] for key, values in request.args.items()}
    except UnicodeDecodeError:
        raise BadRequest("the parameters are not UTF-8") from None


def error_body(request: Any, error: BaseException | None) -> bytes:
    """Set the status that belongs to an error; return the body."""
    if isinstance(error, RequestRedirect | NotFound):
        request.setResponseCode(404)
        return orjson.dumps({"error": f"there is no {request.path.decode('ascii', 'replace')} here"})
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(error.valid_methods or ())
        request.setResponseCode(405)
        request.setHeader("allow", allowed)
        method = request.method.decode("ascii", "replace")
        return orjson.dumps({"error": f"{request.path.decode('ascii', 'replace')} does not take {method}: {allowed}"})
    if isinstance(error, SisockdaqError):
        request.setResponseCode(400 if error.uri in _FAULTS_OF_CALLERS else 503)
        return orjson.dumps({"error": error.message, "remedy": error.remedy})
    _log.error("{path}: {kind}: {error}", path=request.path, kind=type(error).__name__, error=str(error))
    request.setResponseCode(500)
    return orjson.dumps({"error": "the gateway failed; its log says more"})


_FAULTS_OF_CALLERS = frozenset(
    {"sisockdaq.error.bad_request", "sisockdaq.error.interval", "sisockdaq.error.field_unknown"}
)

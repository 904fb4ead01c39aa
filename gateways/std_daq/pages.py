"""The paths of std-daq. Nothing here blocks; every answer is an envelope with HTTP status 200.

Only what is no call at all gets another status: a path that does not exist (404), a wrong method (405), a body that is
too large (413), a page of a foreign origin (403).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from klein import Klein
from pydantic import BaseModel, ValidationError
from sisockdaq.gateways.std_daq import models, openapi
from sisockdaq.gateways.std_daq.images import CONTENT_TYPES, encode
from sisockdaq.gateways.std_daq.mjpeg import Viewer
from sisockdaq.gateways.std_daq.recorded import find, image_reply, metadata
from twisted.internet.defer import CancelledError, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from sisockdaq.errors import AcquisitionRefused, SisockdaqError
from sisockdaq.web import JSON

if TYPE_CHECKING:
    from sisockdaq.gateways.std_daq.node import StdDaq

__all__ = ["Pages", "refusal"]

MOST_VIEWERS = 16
"""Browsers that see live images at the same time."""

IMAGE_DEADLINE = 20.0
"""Time to find and encode a recorded image [s]."""

_log = Logger("sisockdaq.std_daq")

Model = TypeVar("Model", bound=BaseModel)


class BadRequest(SisockdaqError):
    """A request that cannot be understood; its message has every reason."""

    uri = "sisockdaq.error.bad_request"


class ForeignOrigin(SisockdaqError):
    """A page of another origin wants to change something."""


class Pages:
    """What std-daq's clients call.

    Parameters
    ----------
    gateway : StdDaq
    """

    app = Klein()

    def __init__(self, gateway: StdDaq) -> None:
        self._gateway = gateway

    @app.handle_errors(Exception)
    def failed(self, request: Any, failure: Failure) -> bytes:
        """Answer an error as an envelope."""
        request.setHeader("content-type", JSON)
        error = failure.value
        if isinstance(error, RequestRedirect | NotFound):
            request.setResponseCode(404)
            return orjson.dumps(refusal(f"there is no {request.path.decode('ascii', 'replace')} here"))
        if isinstance(error, MethodNotAllowed):
            request.setResponseCode(405)
            request.setHeader("allow", ", ".join(error.valid_methods or ()))
            return orjson.dumps(refusal(f"{request.path.decode('ascii', 'replace')} takes other methods"))
        if isinstance(error, ForeignOrigin):
            request.setResponseCode(403)
        elif isinstance(error, CancelledError):
            return orjson.dumps(refusal("this call was given up; the acquisition goes on"))
        elif not isinstance(error, SisockdaqError):
            _log.error("{path}: {kind}: {error}", path=request.path, kind=type(error).__name__, error=str(error))
            return orjson.dumps(refusal("the gateway failed; its log says more"))
        return orjson.dumps(refusal(_told(error)))

    # Health and description.

    @app.route("/", methods=["GET", "HEAD"])
    def root(self, request: Any) -> bytes:
        """Say whether the network is joined: 200 or 503."""
        return self.healthz(request)

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(self, request: Any) -> bytes:
        """Say whether the network is joined: 200 or 503."""
        gateway = self._gateway
        if not gateway.joined:
            request.setResponseCode(503)
            return orjson.dumps(refusal(f"waiting for the router: {gateway.client.failure or 'not joined yet'}"))
        live = gateway.live.address if gateway.live is not None else None
        return _ok(f"{gateway.name} is on the network", streams=gateway.streams.status(), live=live)

    @app.route("/openapi.json", methods=["GET", "HEAD"])
    def openapi(self, request: Any) -> bytes:
        """Describe the interface."""
        return orjson.dumps(openapi.document())

    # The writer.

    @app.route("/writer/status", methods=["GET", "HEAD"])
    @inlineCallbacks
    def status(self, request: Any) -> Any:
        """Say how far the writer is."""
        writer, progress = yield self._gateway.daq.status_and_progress()
        streams = self._gateway.streams.status()
        return _ok(f"Writer is {writer['state']}.", writer=writer, progress=progress, streams=streams)

    @app.route("/writer/ledger", methods=["GET", "HEAD"])
    @inlineCallbacks
    def ledger(self, request: Any) -> Any:
        """Account for the acquisition that runs, or was the last."""
        found = yield self._gateway.daq.ledger(None)
        return _ok(_accounted(found), ledger=found)

    @app.route("/writer/ledger/<acquisition>", methods=["GET", "HEAD"])
    @inlineCallbacks
    def ledger_of(self, request: Any, acquisition: str) -> Any:
        """Account for one acquisition."""
        found = yield self._gateway.daq.ledger(acquisition)
        return _ok(_accounted(found), ledger=found)

    @app.route("/writer/write_async", methods=["POST"])
    @inlineCallbacks
    def write_async(self, request: Any) -> Any:
        """Start an acquisition."""
        wanted = self._checked(request, models.WriteRequest)
        writer = yield self._gateway.daq.start(wanted)
        return _ok(f"Writing started.{_ignored(wanted)}", writer=writer)

    @app.route("/writer/write_sync", methods=["POST"])
    @inlineCallbacks
    def write_sync(self, request: Any) -> Any:
        """Start an acquisition; answer when it is over, however long that takes."""
        wanted = self._checked(request, models.WriteRequest)
        writer = yield self._gateway.daq.start_and_wait(wanted)
        acquisition = writer["acquisition"]
        how = "failed" if acquisition["state"] == "FAILED" else "finished"
        return _ok(f"Writing {how}: {acquisition['message']}{_ignored(wanted)}", writer=writer)

    @app.route("/writer/stop", methods=["POST"])
    @inlineCallbacks
    def stop(self, request: Any) -> Any:
        """End the acquisition, if there is one."""
        self._require_origin(request)
        writer = yield self._gateway.daq.stop()
        return _ok("Writing stopped." if writer["state"] == "READY" else "Writing is ending.", writer=writer)

    # The DAQ.

    @app.route("/daq/config", methods=["GET", "HEAD"])
    @inlineCallbacks
    def get_config(self, request: Any) -> Any:
        """Give the configuration."""
        config = yield self._gateway.daq.config.get()
        message = f"DAQ configured for bit_depth={config.get('bit_depth')}."
        return _ok(message, config=config, config_id=self._gateway.daq.config.config_id)

    @app.route("/daq/config", methods=["POST"])
    @inlineCallbacks
    def set_config(self, request: Any) -> Any:
        """Change the configuration, all of it or nothing."""
        wanted = self._checked(request, models.ConfigChanges)
        config = yield self._gateway.daq.config.set(wanted.model_dump(exclude_unset=True))
        return _ok("DAQ configuration changed.", config=config, config_id=self._gateway.daq.config.config_id)

    @app.route("/daq/stats", methods=["GET", "HEAD"])
    def stats(self, request: Any) -> bytes:
        """Give the throughput of the last second."""
        return _ok("DAQ statistics.", stats=self._gateway.daq.stats)

    @app.route("/daq/logs/<count>", methods=["GET", "HEAD"])
    @inlineCallbacks
    def logs(self, request: Any, count: str) -> Any:
        """List the last acquisitions, newest first."""
        found = yield self._gateway.daq.logs(_number(count, "the number of logs"))
        return _ok(f"{len(found)} acquisitions.", logs=found)

    @app.route("/daq/deployment", methods=["GET", "HEAD"])
    def deployment(self, request: Any) -> bytes:
        """Say how far the newest configuration has come."""
        found = self._gateway.daq.config.deployment.to_dict()
        return _ok(found["message"], deployment=found)

    @app.route("/daq/live", methods=["GET"])
    def live(self, request: Any) -> Any:
        """Show live images as MJPEG, until the browser goes."""
        live = self._gateway.live
        if live is None:
            raise SisockdaqError("this gateway has no frame ring to show: it runs without a site")
        if live.viewers >= MOST_VIEWERS:
            raise SisockdaqError(f"{MOST_VIEWERS} others watch already", remedy="take the ZeroMQ stream")
        return Viewer(request, live, self._gateway).done

    # The simulated detector.

    @app.route("/simulation/status", methods=["GET", "HEAD"])
    def simulation_status(self, request: Any) -> bytes:
        """Say what the simulator does."""
        found = self._gateway.simulator.status()
        return _ok(f"Simulation is {found['state']}.", simulation=found)

    @app.route("/simulation/start", methods=["POST"])
    @inlineCallbacks
    def simulation_start(self, request: Any) -> Any:
        """Start the simulator."""
        wanted = self._checked(request, models.SimulationRequest)
        self._gateway.simulator.check()
        config = yield self._gateway.daq.config.get()
        started = self._gateway.simulator.start(wanted.rate, wanted.n_images, config)
        return _ok("Simulation started.", simulation=started)

    @app.route("/simulation/stop", methods=["POST"])
    @inlineCallbacks
    def simulation_stop(self, request: Any) -> Any:
        """Stop the simulator."""
        self._require_origin(request)
        found = yield self._gateway.simulator.stop()
        return _ok("Simulation stopped.", simulation=found)

    # Recorded files.

    @app.route("/file/<acquisition>", methods=["GET", "HEAD"])
    @inlineCallbacks
    def file(self, request: Any, acquisition: str) -> Any:
        """Describe a recorded file."""
        logs = yield self._logs_or_none()
        found = yield self._in_thread(metadata, self._gateway.client, acquisition, logs, _folder(request))
        return _ok("Metadata retrieved.", file_metadata=found)

    @app.route("/file/<acquisition>/<index>", methods=["GET", "HEAD"])
    @inlineCallbacks
    def image(self, request: Any, acquisition: str, index: str) -> Any:
        """Give one image of a recorded file."""
        form = (request.args.get(b"format") or [b"png"])[-1].decode("ascii", "replace")
        if form not in (*CONTENT_TYPES, "json"):
            raise BadRequest(f"format={form} is none of {', '.join((*CONTENT_TYPES, 'json'))}")
        number = _number(index, "the index of the image")
        logs = yield self._logs_or_none()
        found = yield self._in_thread(find, self._gateway.client, acquisition, number, logs, _folder(request))
        if form == "json":
            body: bytes = yield self._gateway.compute(lambda: _ok("Image retrieved.", image=image_reply(found)))
            return body
        request.setHeader("content-type", CONTENT_TYPES[form])
        return (yield self._gateway.compute(encode, found.values, form))

    # What the pages share.

    @inlineCallbacks
    def _logs_or_none(self) -> Any:
        """Return the writer's log; nothing where it does not answer: the archive still knows acquisitions by name."""
        try:
            found = yield self._gateway.daq.logs(1000)
        except SisockdaqError:
            return []
        return found

    def _in_thread(self, function: Any, *args: Any) -> Any:
        return self._gateway.in_thread(function, *args, deadline=IMAGE_DEADLINE)

    def _require_origin(self, request: Any) -> None:
        """Refuse pages of other origins: a browser would send what they want without asking its user."""
        origin = request.getHeader("origin")
        if origin and not request.site.may_read(origin):
            raise ForeignOrigin(f"pages of {origin} may not do this", remedy="add it to the gateway's origins")

    def _checked(self, request: Any, model: type[Model]) -> Model:
        """Return the body as a model.

        Raises
        ------
        BadRequest
            With every reason.
        """
        self._require_origin(request)
        raw = request.content.read()
        try:
            body = orjson.loads(raw) if raw.strip() else {}
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadRequest("the body is not a JSON object")
        try:
            return model.model_validate(body)
        except ValidationError as error:
            raise BadRequest(models.reasons_of(error)) from None


def refusal(reason: str) -> dict[str, str]:
    """Return the envelope of an error."""
    return {"status": "error", "message": reason}


def _ok(message: str, **more: Any) -> bytes:
    return orjson.dumps({"status": "ok", "message": message, **more}, option=orjson.OPT_SERIALIZE_NUMPY)


def _told(error: SisockdaqError) -> str:
    """Return an error with all its reasons, on one line."""
    reasons = error.reasons if isinstance(error, AcquisitionRefused) else getattr(error, "problems", [])
    more = [reason for reason in reasons if reason not in (error.message, str(error))]
    return f"{error.message}: {'; '.join(more)}" if more else str(error)


def _ignored(wanted: models.WriteRequest) -> str:
    extra = sorted(wanted.model_extra or {})
    return f" Not used: {', '.join(extra)}." if extra else ""


def _accounted(found: dict[str, Any]) -> str:
    name = found["acquisition"] or "no acquisition yet"
    return f"Ledger of {name}." if found["ledger"] is not None else f"{name}: a ledger comes with the end."


def _folder(request: Any) -> str | None:
    """Return the folder that tells acquisitions of one name apart, if the request says one."""
    given = request.args.get(b"folder")
    return given[-1].decode("utf-8", "replace").rstrip("/") if given and given[-1] else None


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(f"{what} must be a number from 0 on, not {text!r}")
    return int(text)

"""The paths of the gateway. Nothing here blocks: nodes are asked, and replies are made, in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from klein import Klein
from sisockdaq.gateways.grafana import listings, replies
from sisockdaq.gateways.grafana.annotations import acquisition_notes
from sisockdaq.gateways.grafana.asking import Answer, Nodes
from sisockdaq.gateways.grafana.listings import Row
from sisockdaq.gateways.grafana.metrics import CONTENT_TYPE, STATUS_AGE, Age, Metrics
from sisockdaq.gateways.grafana.questions import BadRequest, Query, api_query, nodes_of, panel_query, types_of
from sisockdaq.gateways.grafana.times import span
from sisockdaq.gateways.grafana.web import body_of, error_body, parameters_of
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from sisockdaq.errors import SisockdaqError
from sisockdaq.web import JSON, send

if TYPE_CHECKING:
    from sisockdaq.gateways.grafana.node import Grafana

__all__ = ["MetricsPages", "Pages"]

CSV = "text/csv; charset=utf-8"

NEWEST_AGE = 5.0
"""Newest values for Prometheus are asked for again after this time [s]."""

NEWEST_DEADLINE = 3.0
"""Time that nodes get to give them [s]: a scrape must not wait for one that hangs."""

_NEWEST_POINTS = 4
"""Points that surely hold the newest."""

_Errors = TypeVar("_Errors")


class Pages:
    """What dashboards ask.

    Parameters
    ----------
    gateway : Grafana
    """

    app = Klein()

    def __init__(self, gateway: Grafana) -> None:
        self._gateway = gateway
        self._nodes = Nodes(gateway)
        self.metrics = Metrics(gateway.options.metrics)
        self._age = Age(NEWEST_AGE)

    @app.handle_errors(Exception)
    def failed(self, request: Any, failure: Failure) -> bytes:
        """Answer an error as JSON."""
        request.setHeader("content-type", JSON)
        return error_body(request, failure.value)

    # Health.

    @app.route("/", methods=["GET", "HEAD"])
    def root(self, request: Any) -> bytes:
        """Say whether the network is joined: 200 or 503."""
        return self.healthz(request)

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(self, request: Any) -> bytes:
        """Say whether the network is joined: 200 or 503."""
        client = self._gateway.client
        if client.joined:
            return replies.encode({"status": "ok", "gateway": self._gateway.name})
        request.setResponseCode(503)
        return replies.encode({"status": "waiting for the router", "error": client.failure or "not joined yet"})

    # Panels: SimpleJson and simPod.

    @app.route("/query", methods=["POST"])
    @inlineCallbacks
    def query(self, request: Any) -> Any:
        """Give the samples of a panel."""
        body = body_of(request)
        rows = yield self._rows()
        query = panel_query(body, rows, now=time.time(), cap=self._gateway.options.max_points)
        answer = yield self._ask(query)
        if query.notices:
            answer.notices[""] = list(query.notices)
        pieces = yield self._compute(replies.panel_reply, query.wanted, answer.data, answer.errors, answer.notices)
        return (yield send(request, pieces))

    @app.route("/search", methods=["POST"])
    @inlineCallbacks
    def search(self, request: Any) -> Any:
        """List full names (SimpleJson)."""
        text = _text(_object(body_of(request)), "target")
        rows = yield self._rows()
        return replies.encode(listings.chosen(rows, self._node_names(rows), text))

    @app.route("/metrics", methods=["POST"])
    @inlineCallbacks
    def simpod_metrics(self, request: Any) -> Any:
        """List what a target can be (simPod)."""
        text = _text(_object(body_of(request)), "metric")
        rows = yield self._rows()
        names = list(rows) if text in rows else listings.chosen(rows, (), text)
        payloads = listings.payloads()
        return replies.encode([{"label": name, "value": name, "payloads": payloads} for name in names])

    @app.route("/metric-payload-options", methods=["POST"])
    def payload_options(self, request: Any) -> bytes:
        """List what a target can choose beside its name (simPod)."""
        name = _text(_object(body_of(request)), "name")
        found = [payload["options"] for payload in listings.payloads() if payload["name"] == name]
        return replies.encode(found[0] if found else [])

    @app.route("/variable", methods=["POST"])
    @inlineCallbacks
    def variable(self, request: Any) -> Any:
        """List the values of a dashboard's variable (simPod)."""
        body = _object(body_of(request))
        payload = body.get("payload")
        text = payload if isinstance(payload, str) else _text(payload if isinstance(payload, dict) else body, "target")
        rows = yield self._rows()
        names = listings.chosen(rows, self._node_names(rows), text)
        return replies.encode([{"__text": name, "__value": name} for name in names])

    @app.route("/tag-keys", methods=["POST"])
    def tag_keys(self, request: Any) -> bytes:
        """List the attributes of fields that ad hoc filters can use."""
        _object(body_of(request))
        return replies.encode([{"type": "string", "text": key} for key in listings.FILTER_KEYS])

    @app.route("/tag-values", methods=["POST"])
    @inlineCallbacks
    def tag_values(self, request: Any) -> Any:
        """List the values of such an attribute."""
        key = _text(_object(body_of(request)), "key")
        rows = yield self._rows()
        return replies.encode([{"text": value} for value in listings.tag_values(rows.values(), key)])

    @app.route("/annotations", methods=["POST"])
    @inlineCallbacks
    def annotations(self, request: Any) -> Any:
        """Give the acquisitions of the archives in a range."""
        body = _object(body_of(request))
        limits = body.get("range")
        if not isinstance(limits, dict):
            raise BadRequest('the body has no "range" with "from" and "to"')
        asked = body.get("annotation")
        text = _text(asked, "query") if isinstance(asked, dict) else ""
        start, end = span(limits.get("from"), limits.get("to"), time.time())
        found = yield self._acquisitions()
        return replies.encode(acquisition_notes(found, start, end, text, asked))

    # Infinity, and people with curl.

    @app.route("/api/nodes", methods=["GET", "HEAD"])
    @inlineCallbacks
    def api_nodes(self, request: Any) -> Any:
        """List the nodes."""
        status = yield self._status()
        entries = [entry for entry in status.get("nodes", ()) if isinstance(entry, dict)]
        keys = ("name", "description", "type", "version", "uptime", "last_answer")
        nodes = [{key: entry.get(key) for key in keys} for entry in entries]
        for node in nodes:
            node["last_answer"] = None if node["last_answer"] is None else round(1e3 * node["last_answer"])
        return self._flat(request, nodes, keys)

    @app.route("/api/fields", methods=["GET", "HEAD"])
    @inlineCallbacks
    def api_fields(self, request: Any) -> Any:
        """List the fields of some nodes and types, or of all."""
        given = parameters_of(request)
        rows = yield self._rows()
        found = listings.fields_of(rows, nodes_of(given), types_of(given))
        return self._flat(request, found, list(Row.__slots__))

    @app.route("/api/query", methods=["GET", "HEAD"])
    @inlineCallbacks
    def api_query(self, request: Any) -> Any:
        """Give samples as flat objects or CSV."""
        given = parameters_of(request)
        shape = _choice(given, "shape", ("wide", "long"))
        form = _choice(given, "format", ("json", "csv"))
        rows = yield self._rows()
        query = api_query(given, rows, now=time.time(), cap=self._gateway.options.max_points)
        answer = yield self._ask(query)
        names = [one.name for one in query.wanted]
        failed = {one.name: one.error or answer.errors.get(one.name, "") for one in query.wanted}
        failed = {name: reason for name, reason in failed.items() if name not in answer.data}
        _say_problems(request, failed, answer)
        if failed and not answer.data:
            request.setResponseCode(
                404 if all("no node" in text or "no field" in text for text in failed.values()) else 503
            )
            return replies.encode({"error": next(iter(failed.values())), "errors": failed})
        write = replies.as_csv if form == "csv" else replies.as_rows
        pieces = yield self._compute(lambda: list(write(answer.data, names, shape)))
        return (yield send(request, pieces, content_type=CSV if form == "csv" else JSON))

    @app.route("/api/acquisitions", methods=["GET", "HEAD"])
    @inlineCallbacks
    def api_acquisitions(self, request: Any) -> Any:
        """Give the acquisitions of the archives in a range (default: all), as flat objects."""
        given = parameters_of(request)
        first, last = (given.get("from") or ["0"])[-1], (given.get("to") or ["now+1y"])[-1]
        start, end = span(first, last, time.time())
        entries = yield self._acquisitions()
        return self._flat(request, acquisition_notes(entries, start, end), ("time", "timeEnd", "title", "text", "tags"))

    # Prometheus.

    @app.route("/prometheus", methods=["GET", "HEAD"])
    @inlineCallbacks
    def prometheus(self, request: Any) -> Any:
        """Give the network's health and newest numbers."""
        text = yield self.exposition()
        request.setHeader("content-type", CONTENT_TYPE)
        return text

    @inlineCallbacks
    def exposition(self) -> Any:
        """Return Prometheus' text, with values that are not older than `NEWEST_AGE`."""
        self.metrics.joined = self._gateway.joined
        if self._gateway.joined and self._age.over():
            rows = yield self._rows()
            wanted = dict.fromkeys(self.metrics.wanted(rows), _NEWEST_POINTS)
            answer = yield self._nodes.ask(wanted, -STATUS_AGE, 0.0, deadline=NEWEST_DEADLINE)
            status = yield self._status().addErrback(_nothing)
            self.metrics.update(status, answer.data, rows)
        return self.metrics.text()

    # What the pages share.

    def _rows(self) -> Deferred[dict[str, Row]]:
        return self._compute(lambda: listings.table(self._gateway.client.listings()))

    def _ask(self, query: Query) -> Deferred[Answer]:
        wanted: dict[str, int] = {}
        for one in query.wanted:
            if not one.error:
                wanted[one.name] = max(one.max_points, wanted.get(one.name, 0))
        return self._nodes.ask(wanted, query.start, query.end)

    def _acquisitions(self) -> Deferred[list[dict[str, Any]]]:
        limit = self._gateway.options.deadline + 2.0
        found: Deferred[list[dict[str, Any]]] = self._gateway.in_thread(
            self._gateway.client.acquisitions, deadline=limit
        )
        return found

    def _status(self) -> Deferred[dict[str, Any]]:
        client = self._gateway.client
        asked: Deferred[dict[str, Any]] = self._gateway.in_thread(client.status, deadline=NEWEST_DEADLINE)
        return asked

    def _compute(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return self._gateway.compute(function, *args)

    @staticmethod
    def _node_names(rows: Mapping[str, Row]) -> list[str]:
        return sorted({row.node for row in rows.values()})

    def _flat(self, request: Any, entries: list[dict[str, Any]], keys: Any) -> bytes:
        """Return flat objects as JSON, or as CSV where that is asked for."""
        if _choice(parameters_of(request), "format", ("json", "csv")) == "json":
            return replies.encode(entries)
        request.setHeader("content-type", CSV)
        return replies.cells_as_csv(keys, ([entry.get(key) for key in keys] for entry in entries))


class MetricsPages:
    """GET /metrics on a port of its own, where simPod's POST /metrics is not in the way."""

    app = Klein()

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    @app.handle_errors(Exception)
    def failed(self, request: Any, failure: Failure) -> bytes:
        """Answer an error as JSON."""
        request.setHeader("content-type", JSON)
        return error_body(request, failure.value)

    @app.route("/metrics", methods=["GET", "HEAD"])
    def metrics(self, request: Any) -> Any:
        """Give the same as GET /prometheus."""
        return self._pages.prometheus(request)


def _object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def _text(body: Any, key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _choice(given: Mapping[str, list[str]], key: str, choices: tuple[str, ...]) -> Any:
    """Return a parameter that has few values; the first is the default."""
    value = (given.get(key) or [""])[-1] or choices[0]
    if value not in choices:
        raise BadRequest(f"{key}={value} is none of {', '.join(choices)}")
    return value


def _say_problems(request: Any, failed: Mapping[str, str], answer: Answer) -> None:
    """Name what could not be had in a header: a flat reply has no other place for it."""
    texts = [*failed.values(), *(text for said in answer.notices.values() for text in said)]
    if texts:
        joined = "; ".join(dict.fromkeys(texts))[:2000]
        line = joined.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")
        request.setHeader("x-sisockdaq-problems", line)


def _nothing(failure: Failure) -> dict[str, Any]:
    failure.trap(SisockdaqError)
    return {}

"""The OpenAPI document, made from the models: what a path takes, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from sisockdaq.gateways.std_daq import models

__all__ = ["INTERFACE", "OPERATIONS", "Operation", "document"]

INTERFACE = "1.3.5"
"""Version of std-daq-client that this interface was made for."""

IMAGE_TYPES = ("image/png", "image/jpeg", "application/x-npy")

_ID = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[A-Za-z0-9_.-]+$"}
_INDEX = {"type": "integer", "minimum": 0, "maximum": models.MOST_IMAGES}
_FOLDER = {"type": "string", "description": "Where the file is, when several of that name are in different folders."}
_FORMAT = {"type": "string", "enum": ["png", "jpeg", "npy", "json"], "default": "png"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and method; ``parameters`` holds the schema of each part of the path."""

    method: str
    path: str
    summary: str
    reply: type[BaseModel]
    request: type[BaseModel] | None = None
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    other_types: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Unique among the operations."""
        words = [word.strip("{}") for word in self.path.split("/") if word]
        return "_".join([self.method.lower(), *words])


OPERATIONS = (
    Operation("GET", "/writer/status", "How far the writer is.", models.WriterReply),
    Operation("GET", "/writer/ledger", "What became of the packets and images of the last one.", models.LedgerReply),
    Operation(
        "GET",
        "/writer/ledger/{acquisition_id}",
        "The same of another one, by run_id or by its name.",
        models.LedgerReply,
        parameters={"acquisition_id": _ID},
    ),
    Operation("POST", "/writer/write_async", "Start an acquisition.", models.WriterReply, request=models.WriteRequest),
    Operation(
        "POST",
        "/writer/write_sync",
        "Start an acquisition, and answer when it is over.",
        models.WriterReply,
        request=models.WriteRequest,
    ),
    Operation("POST", "/writer/stop", "End the acquisition; may be called at any time.", models.WriterReply),
    Operation("GET", "/daq/config", "The configuration.", models.ConfigReply),
    Operation("POST", "/daq/config", "Change the configuration.", models.ConfigReply, request=models.ConfigChanges),
    Operation("GET", "/daq/stats", "Throughput.", models.StatsReply),
    Operation(
        "GET",
        "/daq/logs/{n_logs}",
        "The last acquisitions, newest first.",
        models.LogsReply,
        parameters={"n_logs": {"type": "integer", "minimum": 0, "maximum": 1000}},
    ),
    Operation("GET", "/daq/deployment", "How far the newest configuration has come.", models.DeploymentReply),
    Operation("GET", "/simulation/status", "The simulated detector.", models.SimulationReply),
    Operation("POST", "/simulation/start", "Start it.", models.SimulationReply, request=models.SimulationRequest),
    Operation("POST", "/simulation/stop", "Stop it.", models.SimulationReply),
    Operation(
        "GET",
        "/file/{acquisition_id}",
        "A recorded file, by run_id or by the name of its acquisition.",
        models.FileReply,
        parameters={"acquisition_id": _ID},
        query={"folder": _FOLDER},
    ),
    Operation(
        "GET",
        "/file/{acquisition_id}/{i_image}",
        "One image of a recorded file.",
        models.ImageReply,
        parameters={"acquisition_id": _ID, "i_image": _INDEX},
        query={"format": _FORMAT, "folder": _FOLDER},
        other_types=IMAGE_TYPES,
    ),
)
"""What is in the document. Left out: `/daq/live`, whose answer has no end."""

_DESCRIPTION = """The standard DAQ's interface to a site. Every answer has HTTP status 200; `status` says whether the
call succeeded, and `message` why not."""


def document(url: str = "/") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a gateway at `url`."""
    used = {one.reply for one in OPERATIONS} | {one.request for one in OPERATIONS if one.request is not None}
    wanted = sorted(used, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in wanted], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "std-daq", "version": INTERFACE, "description": _DESCRIPTION},
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }


def _operation(one: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _reference(one.reply)}}
    content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in one.other_types}
    found: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "responses": {"200": {"description": "The answer, or an error with its reasons.", "content": content}},
    }
    parameters = [
        {"name": name, "in": place, "required": place == "path", "schema": schema}
        for place, schemas in (("path", one.parameters), ("query", one.query))
        for name, schema in schemas.items()
    ]
    if parameters:
        found["parameters"] = parameters
    if one.request is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(one.request)}},
        }
    return found


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}

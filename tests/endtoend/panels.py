"""What a Grafana does with the provisioned dashboards, without one: variables filled in, targets asked."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from sisockdaq.site import Site

DASHBOARDS = Path(__file__).parents[2] / "gateways" / "grafana" / "provisioning" / "dashboards" / "sisockdaq"
DEADLINE = 30.0

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel, a variable or an annotation, as it stands in the file."""

    title: str
    query: Mapping[str, Any]

    def url(self, values: Mapping[str, str | list[str]]) -> str:
        """Return the address that Grafana and Infinity make of it; several values become ``{a,b}``."""

        def fill(match: re.Match[str]) -> str:
            value = values[match[1] or match[2]]
            if isinstance(value, str):
                return value
            return value[0] if len(value) == 1 else "{" + ",".join(value) + "}"

        parts = urlsplit(_VARIABLE.sub(fill, self.query["url"]))
        return f"{parts.path}?{urlencode(sorted(parse_qsl(parts.query)))}"


def dashboard(name: str) -> dict[str, Any]:
    """Return a dashboard."""
    return dict(json.loads((DASHBOARDS / f"{name}.json").read_text()))


def targets(content: Mapping[str, Any]) -> Iterator[Target]:
    """Yield all that a dashboard asks to draw its panels."""
    for panel in content["panels"]:
        for query in panel["targets"]:
            yield Target(panel["title"], query)


class Gateway:
    """The site's Grafana gateway, as a program outside reaches it."""

    def __init__(self, site: Site, name: str = "grafana") -> None:
        self.url = f"http://127.0.0.1:{site.gateways[name].options['port']}"

    def get(self, path: str) -> Any:
        """Return the decoded JSON of a path; what is not answered with 200 is an error."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Any) -> Any:
        """Return the decoded JSON that answers a body."""
        headers = {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(self.url + path, json.dumps(body).encode(), headers))

    def samples(self, **parameters: Any) -> list[tuple[float, Any]]:
        """Return the samples of one field: times [ms] and values."""
        rows = self.get("/api/query?" + urlencode(parameters))
        return [(row["time"], row["value"]) for row in rows]

    def samples_or_none(self, **parameters: Any) -> list[tuple[float, Any]]:
        """Return them, or nothing while the network is being made whole."""
        rows = self.get_or_none("/api/query?" + urlencode(parameters)) or []
        return [(row["time"], row["value"]) for row in rows]

    def get_or_none(self, path: str) -> Any:
        """Return the decoded JSON, or nothing while a node or a field is not there."""
        try:
            return self.get(path)
        except urllib.error.HTTPError as error:
            if error.code not in (404, 503):
                raise
            return None

    def is_healthy(self) -> bool:
        """Whether the gateway says that it has joined the network."""
        try:
            return bool(self.get("/healthz"))
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return False

    def _ask(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            return json.loads(answer.read(), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")

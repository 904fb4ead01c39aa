"""`Grafana`: its options, its ports."""

from __future__ import annotations

from typing import Any, Literal

import txaio
from pydantic import Field, field_validator
from sisockdaq.gateways.grafana.pages import MetricsPages, Pages
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError

from sisockdaq.errors import PortTaken
from sisockdaq.gateway import Gateway
from sisockdaq.session import the_reactor
from sisockdaq.web import LOOPBACK, HttpSite, own_hosts

__all__ = ["Grafana"]

_LEVELS = {"warning": "warn", "critical": "error", "notset": "debug"}


class Grafana(Gateway):
    """Panels of Grafana over any field: Infinity, simPod JSON and SimpleJson data sources, and Prometheus."""

    class Options(Gateway.Options):
        """Options of the Grafana gateway."""

        host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every network of this machine.")
        port: int = Field(
            5000, ge=0, le=65535, description="TCP port.", json_schema_extra={"environment": "PORT"}
        )  # fmt: skip
        log_level: Literal["debug", "info", "warn", "error"] = Field(
            "info",
            description="What is logged; debug has a line for each request.",
            json_schema_extra={"environment": "LOGLEVEL"},
        )
        max_points: int = Field(
            1_000_000, ge=1, description="Most points of one field in a reply, whatever a panel asks for."
        )
        origins: list[str] = Field(
            default_factory=lambda: list(LOOPBACK),
            description='Origins of pages that may read answers in a browser, with *; ["*"]: any. '
            "Grafana asks by its server and needs none.",
        )
        hosts: list[str] = Field(
            default_factory=list,
            description="Names by which requests may call the gateway beside those of this machine; with none, "
            "any name is right where `host` lets other machines in.",
        )
        body_limit: int = Field(2**20, ge=1024, description="Largest body of a request [bytes].")
        metrics: list[str] = Field(
            default_factory=list,
            description="Fields whose newest values Prometheus gets, as receiver::*; none: those of the status.",
        )
        metrics_port: int | None = Field(
            None, ge=0, le=65535, description="Port of GET /metrics; without it only GET /prometheus serves Prometheus."
        )

        @field_validator("log_level", mode="before")
        @classmethod
        def _level(cls, given: Any) -> Any:
            word = str(given).lower()
            return _LEVELS.get(word, word)

    def start(self) -> Any:
        """Listen."""
        logging: Any = txaio  # its functions are set at run time, unknown to a type checker
        logging.set_global_log_level(self.options.log_level)
        pages = Pages(self)
        self._ports: list[Any] = []
        hosts = own_hosts(self.options.host, self.options.hosts)
        self.port = self._listen(self.options.port, HttpSite(
            pages.app, origins=self.options.origins, body_limit=self.options.body_limit, seen=pages.metrics.seen,
            hosts=hosts,
        ))  # fmt: skip
        self.metrics_port: int | None = None
        if self.options.metrics_port is not None:
            site = HttpSite(MetricsPages(pages).app, origins=(), body_limit=self.options.body_limit, hosts=hosts)
            self.metrics_port = self._listen(self.options.metrics_port, site)
        self.about = f"http://{self.options.host}:{self.port}/"
        self.log.info("listening at {where}", where=self.about)

    def stop(self) -> Deferred[Any]:
        """Listen no more."""
        return DeferredList([port.stopListening() for port in self._ports if port is not None])

    def _listen(self, port: int, site: HttpSite) -> int:
        """Return the port, which the system chooses for 0."""
        try:
            listening: Any = the_reactor().listenTCP(port, site, interface=self.options.host)
        except CannotListenError as error:
            raise PortTaken(
                f"{self.name} cannot listen at {self.options.host}:{port}: {error.socketError}",
                remedy=f"end what holds the port, or choose another: gateways.{self.name}.port",
            ) from None
        self._ports.append(listening)
        return int(listening.getHost().port)

"""`StdDaq`: its options, its port, and what runs beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sisockdaq.gateways.std_daq.daq import Daq
from sisockdaq.gateways.std_daq.live import Live
from sisockdaq.gateways.std_daq.pages import Pages, refusal
from sisockdaq.gateways.std_daq.redis_server import RedisServer
from sisockdaq.gateways.std_daq.simulation import Simulator
from sisockdaq.gateways.std_daq.streams import Streams
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread

from sisockdaq.errors import ConfigurationError, PortTaken
from sisockdaq.gateway import Gateway
from sisockdaq.session import the_reactor
from sisockdaq.web import LOOPBACK, HttpSite

__all__ = ["RedisOptions", "StdDaq"]

_CONFIG_LOOK = 2.0
"""Time between two looks at the receiver's configuration [s]."""


class RedisOptions(BaseModel):
    """Where the Redis streams go."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(None, description="An existing Redis: redis://[user:password@]host[:port][/db], unix://….")
    start: bool = Field(False, description="Start a redis-server on this machine, readable by everybody on it.")
    port: int = Field(6379, ge=0, le=65535, description="Its port on 127.0.0.1; 0: only a unix socket.")
    memory: int = Field(64 * 2**20, ge=2**20, description="Most memory for its data [bytes].")
    buffer: int = Field(1000, ge=1, le=10**6, description="Messages that wait while Redis is away; then oldest go.")

    @model_validator(mode="after")
    def _one_of_both(self) -> RedisOptions:
        if self.url is not None and self.start:
            raise ValueError("url names a Redis, start wants a new one: only one of both")
        if self.url is not None and urlsplit(self.url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f'"{self.url}" is no URL of a Redis: redis://host:port, rediss://… or unix:///path')
        return self


class StdDaq(Gateway):
    """The interface of std-daq: REST, Redis streams, live images."""

    class Options(Gateway.Options):
        """Options of the std-daq gateway."""

        host: str = Field("127.0.0.1", description="Address to listen on; who reaches it may start and stop.")
        port: int = Field(5000, ge=0, le=65535, description="TCP port.")
        writer: str | None = Field(None, description="Node that writes. Default: the site's only file writer.")
        receiver: str | None = Field(None, description="Node of the detector. Default: the site's only image source.")
        writer_user_id: int | None = Field(
            None,
            ge=-1,
            lt=2**31,
            description="Whose the files are, until clients say otherwise. Default: the writer's.",
        )
        redis: RedisOptions | None = Field(
            None, description="Redis streams: a URL, or {start: true}. Default: streams are off."
        )
        live: str | None = Field(
            None,
            description="Where live images are published over ZeroMQ, as tcp://127.0.0.1:20000. Default: nowhere.",
        )
        live_interval: float = Field(0.1, ge=0, le=60, description="Shortest time between two live images [s].")
        simulation: bool = Field(
            False, description="Whether clients may start the simulator, which sends to the receiver's ports."
        )
        origins: list[str] = Field(
            default_factory=lambda: list(LOOPBACK),
            description="Origins of pages that may call in a browser, with *. Programs need none.",
        )
        body_limit: int = Field(2**20, ge=1024, description="Largest body of a request [bytes].")

        @field_validator("redis", mode="before")
        @classmethod
        def _url_alone(cls, given: Any) -> Any:
            return {"url": given} if isinstance(given, str) else given

    def start(self) -> Any:
        """Listen, publish, and look at the writer."""
        options = self.options
        self.writer = options.writer or self._only("file_writer", "writer", self._writers())
        self.receiver = options.receiver or self._only("image source", "receiver", self._receivers())
        self._redis = self._own_redis(options.redis)
        self.streams = self._open_streams(options.redis)
        self.daq = Daq(self)
        self.simulator = Simulator(self.site, self.receiver, allowed=options.simulation)
        self.live: Live | None = None
        if self.state is not None:
            socket = self.state.frames_socket(self.receiver)
            self.live = Live(socket, f"{self.name}-live", options.live, options.live_interval)
        self.port = self._listen(Pages(self))
        self.about = f"http://{options.host}:{self.port}"
        self.log.info("listening at {where}", where=self.about)
        self.every(0.1, self.daq.look)
        self.every(1.0, self.daq.measure)
        self.every(_CONFIG_LOOK, self.daq.config.look)

    def stop(self) -> Deferred[Any]:
        """Listen no more, end what was started."""
        ending = [maybeDeferred(self._port.stopListening)] if hasattr(self, "_port") else []
        if hasattr(self, "simulator"):
            ending.append(self.simulator.stop())
        ending.append(deferToThread(self._close))
        return DeferredList(ending)

    def later(self, seconds: float, function: Callable[[], Any]) -> None:
        """Call a function in the reactor's thread after a while."""
        the_reactor().callLater(seconds, function)

    def _close(self) -> None:
        for one in ("live", "streams"):
            if getattr(self, one, None) is not None:
                getattr(self, one).close()
        if getattr(self, "_redis", None) is not None:
            self._redis.stop()  # type: ignore[union-attr]

    def _own_redis(self, options: RedisOptions | None) -> RedisServer | None:
        if options is None or not options.start:
            return None
        if self.state is None:
            raise ConfigurationError(f"{self.name}: redis: {{start: true}} needs a site's state directory")
        server = RedisServer(self.state, options.port, options.memory)
        self.every(0.5, server.look)
        return server

    def _open_streams(self, options: RedisOptions | None) -> Streams:
        if self._redis is not None:
            return Streams(self._redis.url, shown=self._redis.shown, buffer=options.buffer if options else 1000)
        if options is None or options.url is None:
            return Streams(None)
        return Streams(options.url, shown=_without_login(options.url), buffer=options.buffer)

    def _listen(self, pages: Pages) -> int:
        options = self.options
        site = HttpSite(pages.app, origins=options.origins, body_limit=options.body_limit, refusal=refusal)
        try:
            self._port: Any = the_reactor().listenTCP(options.port, site, interface=options.host)
        except CannotListenError as error:
            raise PortTaken(
                f"{self.name} cannot listen at {options.host}:{options.port}: {error.socketError}",
                remedy=f"end what holds the port, or choose another: gateways.{self.name}.port",
            ) from None
        return int(self._port.getHost().port)

    def _writers(self) -> list[str]:
        nodes = self.site.nodes if self.site is not None else {}
        return [name for name, entry in nodes.items() if entry.type == "file_writer"]

    def _receivers(self) -> list[str]:
        return list(self.site.image_sources()) if self.site is not None else []

    def _only(self, what: str, option: str, found: list[str]) -> str:
        if len(found) == 1:
            return found[0]
        known = f"the site has {', '.join(found)}" if found else "the site has none"
        raise ConfigurationError(
            f"{self.name}: which {what}? ({known})", remedy=f"name it: gateways.{self.name}.{option}"
        )


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))

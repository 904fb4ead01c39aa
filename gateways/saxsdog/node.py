"""`Saxsdog`: a SAXSdog server in a site, watched over as its other parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from sisockdaq.gateways.saxsdog.server import Server
from sisockdaq.gateways.saxsdog.service import Service
from sisockdaq.gateways.saxsdog.watch import ImageWatch
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from sisockdaq.errors import ConfigurationError
from sisockdaq.gateway import Gateway
from sisockdaq.saxsdog.listing import Allowed
from sisockdaq.saxsdog.network import NetworkEntry, choose, new_secret, read_network, write_network
from sisockdaq.saxsdog.wire import Guard

__all__ = ["Saxsdog"]

_LOOK = 1.0
"""Time between two looks at the counters [s]."""


class Saxsdog(Gateway):
    """A SAXSdog server: ZeroMQ commands in, ``.chi`` files out."""

    class Options(Gateway.Options):
        """Options of the SAXSdog gateway."""

        directory: Path | None = Field(
            None, description="Folder that clients see; images lie below it. Default: the site's data."
        )
        allowed: list[Path] = Field(default_factory=list, description="Further folders that clients may name.")
        host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in.")
        port: int | None = Field(
            None, ge=0, le=65535, description="TCP port for commands. Default: that of the network file."
        )
        network: Path | None = Field(
            None,
            description="Network file, with the secret. Default: one in the site's state, made with a new secret.",
        )
        server: str = Field("0", description="Which server of the network file: number or name.")
        feeder: str | None = Field(
            None, description='Address of a feeder; "none": no feeder. Default: that of the network file.'
        )
        watch: bool = Field(True, description="Whether the folder is watched, besides what a feeder tells.")
        compatible: bool = Field(
            False,
            description="For clients of the original: attachments need no signature, replays are not refused.",
        )
        workers: int | None = Field(None, ge=1, le=256, description="Processes, where a calibration names none.")
        relative: str = Field("../work", description="Folder of the curves, seen from that of their image.")
        output: Path | None = Field(None, description="One folder for all curves instead.")

    def start(self) -> Deferred[Any] | None:
        """Listen, and watch."""
        options = self.options
        entry = self._entry()
        port = entry.server_port if options.port is None else (options.port or "*")
        base = self._directory()
        engine = Server(
            Allowed(base, [self._resolved(one) for one in options.allowed]),
            workers=options.workers,
            relative=options.relative,
            output=self._resolved(options.output) if options.output is not None else None,
        )
        feeder = None if options.feeder == "none" else options.feeder or entry.Feeder
        guard = Guard(entry.Secret, strict=not options.compatible)
        self.service = Service(engine, guard, f"tcp://{options.host}:{port}", feeder=feeder)
        self.service.start()
        self._watch = ImageWatch([base], lambda path: engine.new_file(str(path))) if options.watch else None
        self.log.info("listening at {where}", where=self.service.address)
        self.every(_LOOK, self._look)
        # Where there are many folders, it takes a while until all are watched.
        return deferToThread(self._watch.start) if self._watch is not None else None

    def stop(self) -> Deferred[Any]:
        """Listen no more; the pictures in hand are finished."""
        return deferToThread(self._close)

    def _look(self) -> None:
        """Say to the supervisor how it goes."""
        if not self.service.runs:
            raise RuntimeError("a thread of the server has ended")
        self.about = self.service.about()

    def _close(self) -> None:
        if getattr(self, "_watch", None) is not None:
            self._watch.close()  # type: ignore[union-attr]
        if hasattr(self, "service"):
            self.service.stop()

    def _directory(self) -> Path:
        given = self.options.directory
        if given is None and self.site is None:
            raise ConfigurationError(f"{self.name}: which folder?", remedy=f"name it: gateways.{self.name}.directory")
        path = self._resolved(given or Path())
        if given is None:
            path.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            raise ConfigurationError(f"{self.name}.directory: {path} is no folder", remedy="make it, or name another")
        return path

    def _resolved(self, path: Path) -> Path:
        """Return a path as the site means it: from the folder of what its nodes write."""
        return Path(self.site.resolve_output(path)) if self.site is not None else path.absolute()

    def _entry(self) -> NetworkEntry:
        """Return where to listen and the secret; makes the site's own network file at first."""
        path = self.options.network
        if path is None:
            if self.state is None:
                raise ConfigurationError(
                    f"{self.name}: which secret?", remedy=f"name a file: gateways.{self.name}.network"
                )
            path = self.state.path / f"{self.name}-network.json"
            if not path.exists():
                self.state.path.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_network(path, [NetworkEntry(Secret=new_secret(), Name=self.name)])  # type: ignore[call-arg]
            self.log.info("clients need this file: saxsleash --network {path}", path=path)
        return choose(read_network(path), self.options.server)

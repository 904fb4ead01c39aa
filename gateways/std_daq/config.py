"""The configuration of the DAQ: the receiver's detector in std-daq's keys, and whose the files are.

`Configurator` keeps what std-daq adds to the receiver's own description, the user of the files and an id for each
configuration, in a file of the site's state directory: a restart of the gateway changes neither.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from sisockdaq.gateways.std_daq.deploying import Deployment, next_id
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq.errors import AcquisitionRefused, ConfigurationError, SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.gateways.std_daq.daq import Daq
    from sisockdaq.gateways.std_daq.node import StdDaq

__all__ = ["Configurator"]

APPLYING = 40.0
"""Time that a receiver gets to take a new configuration [s]: ports are opened, memory is made."""

CONFIG_KEPT = 1000
"""Configurations that the stream keeps, about."""

USER = "writer_user_id"

_log = Logger("sisockdaq.std_daq")


class Configurator:
    """The configuration of one DAQ; in the reactor's thread.

    Parameters
    ----------
    daq : Daq
    gateway : StdDaq
    """

    def __init__(self, daq: Daq, gateway: StdDaq) -> None:
        self._daq = daq
        self._gateway = gateway
        self._alone = DeferredLock()
        self.deployment = Deployment()
        state = gateway.state
        self._file: Path | None = state.path / f"{gateway.name}.json" if state is not None else None
        kept = _read(self._file)
        user = kept.get(USER)
        self.user_id: int | None = user if isinstance(user, int) else gateway.options.writer_user_id
        self._known: dict[str, Any] | None = kept.get("config")
        self._known_id: str | None = kept.get("config_id")
        self._published = False

    @property
    def config_id(self) -> str | None:
        """Id of the newest configuration."""
        return self._known_id

    @inlineCallbacks
    def get(self) -> Any:
        """Return the whole configuration."""
        found = yield self._daq.ask(self._gateway.receiver, "get_config")
        whole = self._whole(found)
        self._saw(whole)
        return whole

    @inlineCallbacks
    def set(self, changes: Mapping[str, Any]) -> Any:
        """Change the configuration, all of it or nothing; return the whole.

        Raises
        ------
        ConfigurationError, AcquisitionRefused
            Why not; then all is as it was.
        """
        whole = yield self._alone.run(self._set, dict(changes))
        return whole

    @inlineCallbacks
    def look(self) -> Any:
        """See what is deployed: a receiver may have been started anew, or changed by others."""
        if not self._alone.locked:
            try:
                yield self.get()
            except SisockdaqError as error:
                _log.debug("the receiver's configuration: {error}", error=str(error))

    @inlineCallbacks
    def _set(self, changes: dict[str, Any]) -> Any:
        gateway, before, now = self._gateway, self.deployment, time.time()
        user = changes.pop(USER, None)
        found = yield self._daq.ask(gateway.receiver, "get_config")
        # What has the value already is no change: clients send back all that they were given.
        wanted = {key: value for key, value in changes.items() if key not in found or found[key] != value}
        new_id = next_id(self._known_id, now)
        self.deployment = Deployment()
        self.deployment.begin(new_id, [gateway.receiver, gateway.writer], now)
        server = gateway.writer
        try:
            if user is not None and user != self.user_id:
                yield self._have_written_as(user)
            self.deployment.done(gateway.writer, time.time())
            server = gateway.receiver
            if wanted:
                yield self._daq.ask(gateway.receiver, "set_config", wanted, limit=APPLYING)
                found = yield self._daq.ask(gateway.receiver, "get_config")
            self.deployment.done(gateway.receiver, time.time())
        except SisockdaqError as error:
            if isinstance(error, ConfigurationError | AcquisitionRefused):
                self.deployment = before  # refused: nothing was deployed
            else:
                self.deployment.fail(server, error.message, time.time())
            if server == gateway.receiver and user is not None and user != self.user_id:
                yield self._have_written_as(self.user_id).addErrback(_log_failure)
            raise
        self.user_id = self.user_id if user is None else user
        whole = self._whole(found)
        self._saw(whole, new_id)
        return whole

    def _have_written_as(self, user: int | None) -> Deferred[Any]:
        """Tell the writer whose the files are; it refuses whom it cannot be."""
        asked = {USER: user if user is not None and user > 0 else None}
        return self._daq.ask(self._gateway.writer, "set_config", asked)

    def _whole(self, found: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id
        return {**found, USER: -1 if user is None else user}

    def _saw(self, whole: dict[str, Any], new_id: str | None = None) -> None:
        """Take note of what is deployed; a new configuration gets an id, is kept and published."""
        now = time.time()
        changed = whole != self._known or self._known_id is None
        if changed:
            self._known, self._known_id = whole, new_id or next_id(self._known_id, now)
            _write(self._file, {USER: self.user_id, "config": whole, "config_id": self._known_id})
        if changed or not self._published:
            self._published = True
            self._gateway.streams.publish("daq:config", whole, keep=CONFIG_KEPT, message_id=str(self._known_id))
        if self.deployment.config_id != self._known_id:
            servers = [self._gateway.receiver, self._gateway.writer]
            self.deployment = Deployment()
            self.deployment.begin(str(self._known_id), servers, now)
            for server in servers:
                self.deployment.done(server, now)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None or not file.exists():
        return {}
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        _log.warn("{file} is not used: {error}", file=str(file), error=str(error))
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path | None, kept: Mapping[str, Any]) -> None:
    """Replace the file whole."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(orjson.dumps(kept))
        Path(temporary).replace(file)
    except OSError as error:
        _log.warn("{file} cannot be written: {error}", file=str(file), error=str(error))


def _log_failure(failure: Failure) -> None:
    _log.warn("{error}", error=str(failure.value))

"""The state directory of a site: secrets, certificates, sockets, logs and (by default) data.

::

    <state>/secrets.json       one secret a user, 0600
    <state>/endpoint.json      where the router listens, for clients on this machine
    <state>/tls/               self-signed certificate and key
    <state>/router/            configuration and working files of the router
    <state>/logs/<part>.log
    <state>/data/              default root of what nodes write

Unix sockets live in `StateDirectory.sockets`: the kernel allows about 107 bytes for such a path, so a deep state
directory gets a short folder of its own under the temporary directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sisockdaq.errors import ConfigurationError

__all__ = ["StateDirectory", "default_state_root", "find_state"]

_SOCKET_PATH_BYTES = 100
"""Longest path of a unix socket that is used; Linux allows 107 bytes and a zero."""

_LONGEST_SOCKET_NAME = 40
"""Room left for a socket's own name within `_SOCKET_PATH_BYTES`."""


def default_state_root() -> Path:
    """``$SISOCKDAQ_STATE``, else ``$XDG_STATE_HOME/sisockdaq``, else ``~/.local/state/sisockdaq``."""
    if root := os.environ.get("SISOCKDAQ_STATE"):
        return Path(root)
    if root := os.environ.get("XDG_STATE_HOME"):
        return Path(root) / "sisockdaq"
    return Path.home() / ".local" / "state" / "sisockdaq"


def find_state(site: str) -> StateDirectory:
    """Return the state directory of the site of that name on this machine (made when first written to)."""
    return StateDirectory(default_state_root() / site)


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A site's private folder; every part of the site on this machine shares it."""

    path: Path

    def make(self) -> StateDirectory:
        """Create the folder and its rooms, readable by the owner only."""
        for folder in (self.path, self.tls, self.router, self.logs, self.sockets):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    @property
    def tls(self) -> Path:
        """Folder of ``server_cert.pem`` and ``server_key.pem``."""
        return self.path / "tls"

    @property
    def router(self) -> Path:
        """Working folder of the router."""
        return self.path / "router"

    @property
    def logs(self) -> Path:
        """Folder of the parts' logs."""
        return self.path / "logs"

    @property
    def data(self) -> Path:
        """Default root of what nodes write."""
        return self.path / "data"

    @property
    def sockets(self) -> Path:
        """Folder of the unix sockets of this site."""
        folder = self.path / "run"
        if len(os.fsencode(folder)) + _LONGEST_SOCKET_NAME <= _SOCKET_PATH_BYTES:
            return folder
        digest = hashlib.sha256(os.fsencode(self.path.absolute())).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"sisockdaq-{os.getuid()}-{digest}"

    @property
    def router_socket(self) -> Path:
        """The router's unix RawSocket."""
        return self.sockets / "router.sock"

    def frames_socket(self, source: str) -> Path:
        """Where the frame source of that name waits for consumers on this machine."""
        return self.sockets / f"frames-{source}.sock"

    def secret(self, user: str) -> str:
        """Return the user's secret; made at the first call, kept in a file that only the owner can read."""
        known = self._read_secrets()
        if user not in known:
            # The parts of a site start together, and each may be the first to ask.
            with self._alone("secrets.lock"):
                known = self._read_secrets()
                if user not in known:
                    known[user] = secrets.token_urlsafe(32)
                    self._write_private("secrets.json", json.dumps(known, indent=1))
        return known[user]

    def existing_secret(self, user: str) -> str | None:
        """Return the user's secret, or None where none was made."""
        return self._read_secrets().get(user)

    def write_endpoint(self, endpoint: dict[str, object]) -> None:
        """Store how to reach the router: ``{"site", "realm", "base_uri", "url", "socket", "certificate"}``."""
        self._write_private("endpoint.json", json.dumps(endpoint, indent=1))

    def forget_endpoint(self) -> None:
        """Remove what `write_endpoint` stored: the site will not run again under this name."""
        (self.path / "endpoint.json").unlink(missing_ok=True)

    def read_endpoint(self) -> dict[str, str]:
        """Return what `write_endpoint` stored.

        Raises
        ------
        ConfigurationError
            When the site was never started here.
        """
        try:
            return dict(json.loads((self.path / "endpoint.json").read_text()))
        except FileNotFoundError:
            raise ConfigurationError(
                f"no site has run with its state in {self.path}",
                remedy="start it with `sisockdaq up SITE_FILE`, or name a router with --url, --user, --secret-file",
            ) from None

    def _read_secrets(self) -> dict[str, str]:
        path = self.path / "secrets.json"
        try:
            mode = path.stat().st_mode
            text = path.read_text()
        except FileNotFoundError:
            return {}
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(
                f"{path} can be read by others (mode {mode & 0o777:o})", remedy=f"chmod 600 {path}"
            )
        return dict(json.loads(text))

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold a lock among all processes of the site."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.path / name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write_private(self, name: str, text: str) -> None:
        """Replace a file whole: readers see the old text or the new, and never a readable moment for others."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        Path(temporary).replace(self.path / name)

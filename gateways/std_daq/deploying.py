"""The deployment of a configuration: which nodes have taken it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["Deployment", "next_id"]

DEPLOYING, DONE = "Deploying", "Done"


class Deployment:
    """How far the newest configuration has come.

    Attributes
    ----------
    config_id : str or None
        Of the newest configuration that began to be deployed; None before the first.
    """

    def __init__(self) -> None:
        self.config_id: str | None = None
        self._servers: dict[str, str] = {}
        self._failure: str | None = None
        self._started: float | None = None
        self._ended: float | None = None

    def begin(self, config_id: str, servers: Iterable[str], now: float) -> None:
        """Note that these nodes are to take a configuration."""
        self.config_id, self._started, self._ended, self._failure = config_id, now, None, None
        self._servers = dict.fromkeys(servers, DEPLOYING)

    def done(self, server: str, now: float) -> None:
        """Note that a node has taken it."""
        if server in self._servers:
            self._servers[server] = DONE
        if all(word == DONE for word in self._servers.values()):
            self._ended = now

    def fail(self, server: str, reason: str, now: float) -> None:
        """Note that a node has not taken it, and why."""
        self._servers[server] = reason
        self._failure, self._ended = f"{server}: {reason}", now

    def to_dict(self) -> dict[str, Any]:
        """Return std-daq's object."""
        status, message = self._status()
        return {
            "config_id": self.config_id,
            "message": message,
            "servers": dict(self._servers),
            "stats": {"start_time": self._started, "stop_time": self._ended},
            "status": status,
        }

    def _status(self) -> tuple[str, str]:
        if self.config_id is None:
            return "UNKNOWN", "No config available"
        if self._failure is not None:
            return "ERROR", f"Deployment failed: {self._failure}"
        if self._ended is None:
            return "RUNNING", "Waiting for servers..."
        return "SUCCESS", "Deployment successful"


def next_id(last: str | None, now: float) -> str:
    """Return the id of a configuration, as a Redis stream has them: ``<milliseconds>-<count>``, always growing."""
    milliseconds, count = int(now * 1e3), 0
    if last is not None:
        before, _, number = last.partition("-")
        if int(before) >= milliseconds:
            milliseconds, count = int(before), int(number) + 1
    return f"{milliseconds}-{count}"

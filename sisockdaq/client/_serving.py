"""`ServingClient`: the network for a process that answers others (a gateway), whose requests must not wait in vain.

Other than `Client` it promises that

- it begins without a router, joins when there is one, and joins again after any loss;
- what fields there are is kept up by the hub's events and a refresh in the background: a request never waits for the
  listing of a node that it does not ask, so that one that hangs costs nobody else anything;
- one field that cannot be had costs only itself (`ServingClient.get_each`).

`begin`, `leave` and `refresh` are for the reactor's thread, all else for any other, like `Client`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sisockdaq._wamp.link import Credentials, Endpoint
from sisockdaq.client._asking import Asker, Catalog, _Listing
from sisockdaq.client._client import Client
from sisockdaq.client._dataset import Dataset
from sisockdaq.client._network import Network
from sisockdaq.errors import NodeNotFound, SisockdaqError
from sisockdaq.schema import FieldList

__all__ = ["ServingClient"]

REFRESH_PERIOD = 5.0
"""Time between two looks at the listings of all nodes [s]: a node may get fields while it runs."""

FIRST_LISTING = 1.0
"""Longest time that `ServingClient.listings` waits for the first answers of nodes that have just come [s]."""

ASKED_RECENTLY = 1.0
"""A listing is not asked for again within this time [s], whoever wants it."""

_log = Logger("sisockdaq.client")


class _KeptCatalog(Catalog):
    """Listings that are kept up by events."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._hub: dict[str, dict[str, Any]] | None = None
        self._asking: dict[str, float] = {}
        self._changed = threading.Condition(self._lock)
        self._hub_asked = False
        network.listen("consumer.data_node_added", self._added, self.refresh)
        network.listen("consumer.data_node_subtracted", self._subtracted, self.refresh)

    # What requests use.

    def forget(self, *event: Any) -> None:
        """Look again in the background; what is known stays until it is known better."""
        self.refresh()

    def nodes(self) -> list[dict[str, Any]]:
        """Return the hub's listing as it was at the latest event."""
        with self._lock:
            if self._hub is not None:
                return list(self._hub.values())
        return super().nodes()

    def listings(self, names: Iterable[str], *, deadline: float | None = None, fresh: bool = False) -> None:
        """Ask nodes that were asked for by name and are not known; leave all others to the background."""
        if deadline is not None:
            if fresh:
                for name in names:
                    self._ask(name)
            return
        now = time.monotonic()
        with self._lock:
            known = {name: self._known[name] for name in names if name in self._known}
        wanted = [
            name
            for name in names
            if name not in known
            or ((fresh or known[name].error is not None) and now - known[name].asked > ASKED_RECENTLY)
        ]
        super().listings(wanted, fresh=True)

    def snapshot(self, patience: float) -> dict[str, FieldList]:
        """Return the listing by node, waiting a moment for those that have never answered."""
        end = time.monotonic() + patience
        with self._changed:
            while self._new_ones(patience) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            hub = self._hub or {}
            return {
                name: known.fields
                for name in sorted(hub)
                if (known := self._known.get(name)) is not None and known.error is None
            }

    def _new_ones(self, patience: float) -> bool:
        """Whether a node that was asked for the first time, a moment ago, has not answered yet."""
        if self._hub is None:
            return self._network.attached
        recent = time.monotonic() - patience
        return any(name in self._hub and name not in self._known and t > recent for name, t in self._asking.items())

    # The background.

    def refresh(self) -> None:
        """Ask the hub and all nodes for their listings; waits for nothing."""
        if not self._network.attached or self._hub_asked:
            return
        self._hub_asked = True
        self._network.start_call("consumer.get_data_node").add_done_callback(self._hub_said)

    def _hub_said(self, future: Future[Any]) -> None:
        self._hub_asked = False
        try:
            listing = future.result()
            entries = {str(entry["name"]): dict(entry) for entry in listing}
        except (SisockdaqError, TypeError, KeyError, ValueError) as error:
            _log.info("the hub's listing: {error}", error=str(error))
            return
        with self._changed:
            self._hub = entries
            for name in self._known.keys() - entries.keys():
                del self._known[name]
            self._changed.notify_all()
        for name in entries:
            self._ask(name)

    def _added(self, event: Any = None, *_: Any) -> None:
        name = _name(event)
        if name is None:
            self.refresh()
            return
        with self._changed:
            if self._hub is not None:
                self._hub[name] = dict(event)
            self._known.pop(name, None)
            self._asking.pop(name, None)
        self._ask(name)

    def _subtracted(self, event: Any = None, *_: Any) -> None:
        name = _name(event)
        with self._changed:
            if self._hub is not None and name is not None:
                self._hub.pop(name, None)
            self._known.pop(name or "", None)
            self._changed.notify_all()

    def _ask(self, name: str) -> None:
        """Ask a node for its listing, unless that is under way."""
        with self._lock:
            if name in self._asking:
                return
            begun = self._asking[name] = time.monotonic()
        future = self._network.start_listing(name)
        future.add_done_callback(lambda future: self._node_said(name, begun, future))

    def _node_said(self, name: str, begun: float, future: Future[Any]) -> None:
        error: SisockdaqError | None = None
        try:
            fields, plain = future.result()
        except SisockdaqError as reason:
            fields, plain, error = FieldList(), False, reason
        with self._changed:
            if self._asking.get(name) != begun:
                return  # another node of that name has come since
            del self._asking[name]
            before = self._known.get(name)
            listed = self._hub is None or name in self._hub
            if listed and (error is None or before is None):
                self._known[name] = _Listing(fields, plain, time.monotonic(), error)
            self._changed.notify_all()


class ServingClient(Client):
    """A connection to a network, for a process that answers others.

    Parameters
    ----------
    endpoint : Endpoint
    credentials : Credentials
        It acts as this one user in everything.
    deadline : float
        Longest silence that a call bears [s].
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials, *, deadline: float = 10.0) -> None:
        # Not Client's own: that one waits for the router.
        self._state = None
        self._given = credentials
        self._network = Network(endpoint, credentials, deadline=deadline)
        self._control = self._network
        self._kept = _KeptCatalog(self._network)
        self._catalog = self._kept
        self._asker = Asker(self._network, self._catalog)

    @property
    def joined(self) -> bool:
        """Whether the network is joined now."""
        return self._network.attached

    @property
    def failure(self) -> str:
        """Why the network is not joined, as far as that is known."""
        return "" if self.joined or self._network.failure is None else str(self._network.failure)

    def begin(self) -> Deferred[None]:
        """Begin to connect; the Deferred fires after `leave`, or fails with what makes further tries useless."""
        return self._network.begin()

    def leave(self) -> Deferred[Any]:
        """Leave the network."""
        return self._network.leave()

    def refresh(self) -> None:
        """Look in the background what nodes and fields there are."""
        self._kept.refresh()

    def listings(self) -> dict[str, FieldList]:
        """Return every listed node's fields, as known; a node that has never answered is left out."""
        return self._kept.snapshot(FIRST_LISTING)

    def get_each(self, names: Sequence[str], start: float, end: float, *, max_points: int | None = None) -> Dataset:
        """Return what can be had of these fields in ``[start, end)``; ``errors`` holds the reason for each other.

        Parameters as those of `Client.get`; raises `IntervalError` only.
        """
        return self._asker.get(names, start, end, max_points, None, bear=True)

    def status(self) -> dict[str, Any]:
        """Return the hub's status; of an older hub, the nodes' names only."""
        try:
            return dict(self._network.call("consumer.get_status"))
        except NodeNotFound:
            return {"nodes": self._network.call("consumer.get_data_node")}

    def acquisitions(self) -> list[dict[str, Any]]:
        """Return what the archives that answer hold, oldest first."""
        asked = {
            str(entry["name"]): self._network.start_call(f"consumer.{entry['name']}.acquisitions")
            for entry in self._kept.nodes()
        }
        found: list[dict[str, Any]] = []
        for name, future in asked.items():
            try:
                found += [{**entry, "archive": name} for entry in self._network.result(future, self._network.deadline)]
            except SisockdaqError:
                continue  # no archive, or one that does not answer now
        return sorted(found, key=lambda entry: (entry.get("span") or [0])[0] or 0)


def _name(event: Any) -> str | None:
    return str(event["name"]) if isinstance(event, dict) and "name" in event else None

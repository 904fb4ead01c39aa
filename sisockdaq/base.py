"""What node authors subclass: `DataNodeServer`.

A node declares series in `DataNodeServer.setup` and appends to them; everything else is here: the procedures that a
consumer calls, downsampling, live feeds, health, and coming back after any loss of the router or the hub. A node over
files or a database overrides `get_fields` and `get_data`, or their blocking twins, exactly as in sisock: a subclass
written for sisock runs after changing its import.

What the network sees is the sisock contract (plain lists), and beside it the procedures of `sisockdaq.wire`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from autobahn.wamp.types import ComponentConfig
from pydantic import BaseModel, ConfigDict
from twisted.internet.defer import Deferred, inlineCallbacks

from sisockdaq import schema
from sisockdaq._node.core import NodeCore
from sisockdaq._node.serving import control, overridden, procedures, twin
from sisockdaq._wamp.link import Credentials, LinkedSession, answer_challenge
from sisockdaq.schema import Axis, FieldList, FieldType
from sisockdaq.series import Series
from sisockdaq.state import StateDirectory

__all__ = [
    "BASE_URI",
    "OCS_PORT",
    "REALM",
    "SISOCK_HOST",
    "SISOCK_PORT",
    "WAMP_SECRET",
    "WAMP_URI",
    "WAMP_USER",
    "DataNodeServer",
    "control",
    "sisock_to_unix_time",
    "uri",
]

WAMP_USER = os.environ.get("WAMP_USER", "server")
"""User of a node that is started without a site."""

WAMP_SECRET = os.environ.get("WAMP_SECRET", "")
"""Its secret. There is no default: without one the login is refused."""

SISOCK_HOST = os.environ.get("CROSSBAR_HOST", "sisock-crossbar")
"""The router's host, for a node that is started without a site."""

SISOCK_PORT = int(os.environ.get("CROSSBAR_TLS_PORT", "8080"))
"""Port of the router's TLS WebSocket."""

OCS_PORT = int(os.environ.get("CROSSBAR_OCS_PORT", "8001"))
"""Port of the plain WebSocket of OCS agents."""

WAMP_URI = f"wss://{SISOCK_HOST}:{SISOCK_PORT}/ws"
"""The router's TLS WebSocket, for a node that is started without a site."""

REALM = os.environ.get("WAMP_REALM", "sisockdaq")
"""The realm to join."""

BASE_URI = os.environ.get("WAMP_BASE_URI", "sisockdaq")
"""The prefix of all names on the network."""


def uri(s: str) -> str:
    """Return the full URI of a procedure or topic: ``BASE_URI.s``."""
    return f"{BASE_URI}.{s}"


def sisock_to_unix_time(t: float) -> float:
    """Return UNIX time [s]: `t` itself when positive, else now + `t`."""
    return schema.unix_time(t, time.time())


class DataNodeServer(LinkedSession):
    """A node: answers what fields it has and what their data are.

    Attributes
    ----------
    name : str
        Unique on the network; a site gives it, a sisock subclass sets it in the class.
    description : str
        For people; by default the first line of the class's docstring.
    options : Options
        The node's options, checked before it starts.
    site : Site or None
        The site that the node belongs to.
    state : StateDirectory or None
        The site's private folder on this machine.
    deadline : float
        Longest time that a blocking method may take for one call [s].
    """

    name: Any = None
    description: Any = None
    deadline: ClassVar[float] = 30.0
    options: Any
    site: Any
    state: StateDirectory | None

    class Options(BaseModel):
        """Options of a node; a subclass adds its own."""

        model_config = ConfigDict(extra="forbid")

    def __init__(self, config: ComponentConfig | None = None) -> None:
        super().__init__(config)
        self._core()

    # What an author writes.

    def setup(self) -> Any:
        """Declare series, open devices, start timers. Called once in the life of the process; may return a Deferred."""

    def teardown(self) -> Any:
        """Let go of devices and files. Called when the process ends; may return a Deferred.

        Called once; once more where `setup` was still under way then, when that has ended.
        """

    def after_onJoin(self, details: Any) -> Any:  # noqa: N802 - sisock's name
        """Do more after each login, once the procedures are registered."""

    def get_fields(self, start: float, end: float) -> Any:
        """Return ``[field, timeline]``: the fields that may have data in ``[start, end)``.

        Override this, or its blocking twin ``_get_fields_blocking(start, end)``, which runs in a thread with absolute
        UNIX times. The default is what `get_schema` says, without the fields of type array.
        """
        blocking = twin(self, "get_fields")
        if blocking is not None:
            return self.in_thread(blocking, sisock_to_unix_time(start), sisock_to_unix_time(end))
        if overridden(self, "get_schema", DataNodeServer.get_schema):
            return self._core().deferred(self.get_schema, start, end).addCallback(lambda listing: listing.to_plain())
        return self._listing(start, end).to_plain()

    def get_data(self, field: Sequence[str], start: float, end: float, min_stride: float | None = None) -> Any:
        """Return ``{"data": {field: values}, "timeline": {name: {"t", "finalized_until"}}}`` of ``[start, end)``.

        Override this, or its blocking twin ``_get_data_blocking(field, start, end, min_stride)``, which runs in a
        thread with absolute UNIX times. The default is what `get_samples` says.
        """
        blocking = twin(self, "get_data")
        if blocking is not None:
            first, last = sisock_to_unix_time(start), sisock_to_unix_time(end)
            return self.in_thread(blocking, field, first, last, min_stride)
        if overridden(self, "get_samples", DataNodeServer.get_samples):
            answer = self._core().deferred(self.get_samples, list(field), start, end, None, min_stride)
            return answer.addCallback(lambda reply: reply.to_plain())
        first, last = schema.resolve_interval(start, end, time.time(), allow_empty=True)
        return self.store.get(field, first, last, min_stride=min_stride).to_plain()

    def get_schema(self, start: float, end: float) -> Any:
        """Return the listing with array fields: a `FieldList` (or a Deferred of one).

        Override this, or its blocking twin ``_get_schema_blocking(start, end)``, which runs in a thread with absolute
        UNIX times. The default is that of the declared series, or what an overridden `get_fields` says.
        """
        blocking = twin(self, "get_schema")
        if blocking is not None:
            return self.in_thread(blocking, *schema.resolve_interval(start, end, time.time(), allow_empty=True))
        if overridden(self, "get_fields", DataNodeServer.get_fields):
            answer = self._core().deferred(self.get_fields, start, end)
            return answer.addCallback(lambda plain: FieldList.parse(plain, source=str(self.name)))
        return self._listing(start, end)

    def get_samples(
        self,
        fields: Sequence[str],
        start: float,
        end: float,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> Any:
        """Return a `Reply` (or a Deferred of one) with typed arrays; what `Client` gets.

        Override this, or its blocking twin ``_get_samples_blocking(fields, start, end, max_points, min_stride)``,
        which runs in a thread with absolute UNIX times; `sisockdaq.downsample.thin` keeps the limits. The default
        reads the declared series in a thread, or takes what an overridden `get_data` says.
        """
        first, last = schema.resolve_interval(start, end, time.time(), allow_empty=True)
        blocking = twin(self, "get_samples")
        if blocking is not None:
            return self.in_thread(blocking, list(fields), first, last, max_points, min_stride)
        if overridden(self, "get_data", DataNodeServer.get_data):
            return self._core().samples_of_plain(fields, first, last, max_points, min_stride)
        return self.in_thread(self.store.get, fields, first, last, max_points=max_points, min_stride=min_stride)

    # What an author calls.

    @property
    def store(self) -> Any:
        """The declared series, a `SeriesStore`."""
        return self._core().store

    def series(
        self,
        name: str,
        *,
        units: str | None = None,
        description: str | None = None,
        timeline: str | None = None,
        type: FieldType = "number",
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        axes: Sequence[Axis | Mapping[str, Any]] = (),
        keep: float = 3600.0,
        max_samples: int = 2_000_000,
        feed: bool = True,
    ) -> Series:
        """Declare a field and return its series, to which samples are appended from any thread.

        Parameters are those of `SeriesStore.series`; with `feed`, what is appended is published.
        """
        return self._core().series(
            name, units=units, description=description, timeline=timeline, type=type, shape=shape, dtype=dtype,
            axes=axes, keep=keep, max_samples=max_samples, feed=feed,
        )  # fmt: skip

    def every(self, seconds: float, function: Callable[[], Any], in_thread: bool = False) -> None:
        """Call a function now and every so many seconds until the node ends; may be called in any thread.

        With `in_thread` it runs in a thread of its own and may block. An error is logged and counted; the next call
        comes all the same.
        """
        self._core().every(seconds, function, in_thread)

    def in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run a blocking function in the bounded thread pool; return a Deferred that fails after `deadline` seconds.

        During `setup` it may take longer, so that kernels can be compiled.
        """
        return self._core().in_thread(function, *args, **kwargs)

    def publish_feed(self, timeline: str, block: Mapping[str, Any]) -> None:
        """Publish samples of a timeline that is not a declared series; from any thread.

        Parameters
        ----------
        timeline : str
            Name of the timeline; the topic is ``B.consumer.<node>.feed.<timeline>``.
        block : mapping
            ``{"t": times (n,), "data": {field: values (n, ...)}}``
        """
        self._core().publish_feed(timeline, block)

    def register_procedure(self, name: str, function: Callable[..., Any], in_thread: bool = False) -> None:
        """Offer ``B.consumer.<node>.<name>`` to every consumer; call this in `setup`.

        The function may return a `Reply`, which goes out in chunks, as that of `get_samples`.
        """
        self._core().procedures[name] = (function, in_thread)

    def register_control(self, name: str, function: Callable[..., Any], in_thread: bool = False) -> None:
        """Offer ``B.control.<node>.<name>`` to callers with the role control; call this in `setup`."""
        self._core().controls[name] = (function, in_thread)

    def uri(self, s: str) -> str:
        """Return a full URI on this node's network."""
        return self._core().uri(s)

    # How the node joins. A subclass that overrides one of these calls the inherited one.

    def onConnect(self) -> None:  # noqa: N802 - autobahn's name
        """Log in."""
        self._core()
        super().onConnect()

    def onChallenge(self, challenge: Any) -> str:  # noqa: N802 - autobahn's name
        """Answer the router's challenge with the node's secret."""
        core = self._core()
        return answer_challenge(challenge, core.credentials.secret)

    @inlineCallbacks
    def onJoin(self, details: Any) -> Any:  # noqa: N802 - autobahn's name
        """Register the procedures, ask the hub to list this node, then call `after_onJoin`."""
        core = self._core()
        runner = core.unmanaged()
        if runner is not None:
            runner.joined()
        yield core.set_up()
        yield core.enter(procedures(self))
        yield self.after_onJoin(details)

    def onLeave(self, details: Any) -> Any:  # noqa: N802 - autobahn's name
        """Forget the connection; a new one is made by whoever runs the node."""
        self._core().left()
        return super().onLeave(details)

    def onDisconnect(self) -> None:  # noqa: N802 - autobahn's name
        """Fail what was asked over the lost connection; a node that a script runs connects again."""
        core = self._core()
        core.left()
        super().onDisconnect()
        runner = core.unmanaged()
        if runner is not None:
            runner.lost()

    def _listing(self, start: float, end: float) -> FieldList:
        first, last = schema.resolve_interval(start, end, time.time(), allow_empty=True)
        listing: FieldList = self.store.fields(first, last)
        return listing

    def _core(self) -> NodeCore:
        """Return what belongs to the node rather than to a connection; made at first use.

        A sisock subclass may call ``ApplicationSession.__init__`` past this class, so nothing relies on `__init__`.
        """
        core: NodeCore | None = self.__dict__.get("_node_core")
        if core is None:
            core = NodeCore(self, Credentials(WAMP_USER, WAMP_SECRET), BASE_URI)
            self.__dict__["_node_core"] = core
        return core

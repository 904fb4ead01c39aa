"""The procedures that a node registers, and how its methods answer them.

Every answer is plain for every serializer, has a deadline, and is small enough for one message or comes in chunks.
An error of `sisockdaq.errors` reaches the caller as what it is; any other is logged here, with its traceback, and
reaches the caller as one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import RegisterOptions
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq import flow, wire
from sisockdaq._wamp.link import the_reactor
from sisockdaq.errors import DeadlineExceeded, ReplyInvalid, SisockdaqError
from sisockdaq.schema import FieldList, Reply, plain_values

__all__ = ["PLAIN_BYTES", "control", "one_message", "overridden", "plain_data", "procedures", "twin"]

PLAIN_BYTES = 800 << 10
"""Largest reply of the contract's own procedures [bytes, as JSON by `_size`]; more data are answered with ``False``.

Programs of existing sites run under autobahn's ApplicationRunner, which takes messages up to 1 MiB and drops the
connection at a larger one. The rest is for numbers that are longer than `_NUMBER_BYTES`, of which the longest has 24.
"""

MESSAGE_BYTES = 8 << 20
"""Largest reply of all other procedures [bytes]: half the router's limit."""

_NUMBER_BYTES = 20
"""A float64 in JSON, with its comma."""

_CHARACTER_BYTES = 4
"""A character beyond ASCII in UTF-8, at most."""

_GRACE = 5.0
"""Time beyond a node's own deadline after which an answer that never came is given up [s]."""

_TWINS = {
    "get_fields": ("_get_fields_blocking", "get_fields_blocking"),
    "get_data": ("_get_data_blocking", "get_data_blocking"),
    "get_schema": ("_get_schema_blocking",),
    "get_samples": ("_get_samples_blocking",),
}

_log = Logger("sisockdaq.serving")


def control(function: Any = None, *, name: str | None = None, in_thread: bool = False) -> Any:
    """Mark a method of a node as a control procedure, ``B.control.<node>.<name>``; use with or without arguments.

    Only callers with the role control may call it. With `in_thread` it runs in the node's thread pool.
    """

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        method._control = (name or method.__name__, in_thread)  # type: ignore[attr-defined]
        return method

    return mark(function) if function is not None else mark


def twin(node: Any, method: str) -> Callable[..., Any] | None:
    """Return the blocking twin of a method that the author wrote, or None."""
    return next((getattr(node, name) for name in _TWINS[method] if hasattr(node, name)), None)


def overridden(node: Any, method: str, default: Callable[..., Any]) -> bool:
    """Whether the author answers this question instead of `default`, directly or by a blocking twin."""
    return twin(node, method) is not None or getattr(type(node), method) is not default


def procedures(node: Any) -> list[tuple[str, Callable[..., Any], RegisterOptions | None]]:
    """Return ``(uri, function, options)`` of everything the node registers."""
    core = node._core()
    prefix = core.uri(f"consumer.{node.name}.")
    wait = node.deadline + _GRACE

    def get_fields(start: float = 1.0, end: float = 0.0) -> Any:
        return core.deferred(node.get_fields, start, end).addCallback(plain_fields)

    def get_data(fields: Sequence[str], start: float, end: float, min_stride: float | None = None) -> Any:
        return core.plain_data(fields, start, end, min_stride).addCallback(plain_data)

    def get_schema(start: float = 1.0, end: float = 0.0) -> Any:
        return core.deferred(node.get_schema, start, end).addCallback(
            lambda listing: one_message(listing.to_schema() if isinstance(listing, FieldList) else list(listing))
        )

    def get_arrays(
        fields: Sequence[str],
        start: float,
        end: float,
        max_points: int | None = None,
        min_stride: float | None = None,
        details: Any = None,
    ) -> Any:
        answer = core.deferred(node.get_samples, list(fields), start, end, max_points, min_stride)
        within(answer, wait, f"{node.name}.get_arrays")
        return answer.addCallback(_send, node, details)

    served: list[tuple[str, Callable[..., Any], RegisterOptions | None]] = [
        # What older nodes lack comes first: who finds get_fields and no get_schema has an older node before it.
        (
            prefix + "get_arrays",
            answering(node, "get_arrays", get_arrays, None),
            RegisterOptions(details_arg="details"),
        ),
        (prefix + "get_schema", answering(node, "get_schema", get_schema, wait), None),
        (prefix + "get_fields", answering(node, "get_fields", get_fields, wait), None),
        (prefix + "get_data", answering(node, "get_data", get_data, wait), None),
        (prefix + "ping", answering(node, "ping", core.health, wait), None),
    ]
    for name, (function, in_thread) in core.procedures.items():
        served.append(_further(node, prefix + name, name, function, in_thread))
    for name, (function, in_thread) in controls(node).items():
        run = _in_thread(node, function) if in_thread else _direct(core, function)
        run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        served.append((core.uri(f"control.{node.name}.{name}"), answering(node, name, run, wait), None))
    return served


def _further(
    node: Any, uri: str, name: str, function: Callable[..., Any], in_thread: bool
) -> tuple[str, Callable[..., Any], RegisterOptions]:
    """Return the registration of an author's own procedure, whose `Reply` goes out in chunks."""
    run = node.in_thread if in_thread else node._core().deferred

    def ask(*args: Any, details: Any = None, **kwargs: Any) -> Any:
        answer = within(run(function, *args, **kwargs), node.deadline + _GRACE, f"{node.name}.{name}")
        return answer.addCallback(
            lambda result: _send(result, node, details) if isinstance(result, Reply) else one_message(result)
        )

    # The author's own parameters, for the check of arguments, and the one that the router's details come in.
    parameters = [*inspect.signature(function).parameters.values()]
    details = inspect.Parameter("details", inspect.Parameter.KEYWORD_ONLY, default=None)
    ask.__signature__ = inspect.Signature([*parameters, details])  # type: ignore[attr-defined]
    return uri, answering(node, name, ask, None), RegisterOptions(details_arg="details")


def controls(node: Any) -> dict[str, tuple[Callable[..., Any], bool]]:
    """Return the control procedures by name: those marked by `control`, and those registered in `setup`."""
    marked = {}
    for attribute in dir(type(node)):
        mark = getattr(getattr(type(node), attribute, None), "_control", None)
        if mark is not None:
            marked[mark[0]] = (getattr(node, attribute), mark[1])
    return {**marked, **node._core().controls}


def plain_data(reply: Any) -> Any:
    """Return a ``get_data`` reply as plain values; ``False`` where it is too large for one message."""
    if not isinstance(reply, dict):
        return False
    columns = [*reply.get("data", {}).values(), *(line.get("t", ()) for line in reply.get("timeline", {}).values())]
    return False if sum(map(_size, columns)) > PLAIN_BYTES else plain_values(reply)


def plain_fields(reply: Any) -> Any:
    """Return a ``get_fields`` reply as plain values.

    Raises
    ------
    ReplyInvalid
        When it is more than an old caller can take; the contract knows no smaller answer.
    """
    listing = list(reply)
    size = _size(listing)
    if size > PLAIN_BYTES:
        raise ReplyInvalid(
            f"the listing of {size / 2**20:.1f} MiB is more than a plain caller can take",
            remedy="ask get_schema, or for a shorter span",
        )
    return plain_values(listing)


def one_message(result: Any) -> Any:
    """Return a result as plain values.

    Raises
    ------
    ReplyInvalid
        When it is too large for one message.
    """
    size = _size(result)
    if size > MESSAGE_BYTES:
        raise ReplyInvalid(f"the answer of {size / 2**20:.0f} MiB is more than one message may hold")
    return plain_values(result)


def within(answer: Deferred[Any], seconds: float, what: str) -> Deferred[Any]:
    """Fail a Deferred with `DeadlineExceeded` unless it fires in time."""

    def too_late(result: Any, _: float) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise DeadlineExceeded(f"{what} gave no answer within {seconds:g} s")
        return result

    return answer.addTimeout(seconds, the_reactor(), too_late)


def answering(node: Any, what: str, function: Callable[..., Any], seconds: float | None) -> Callable[..., Any]:
    """Wrap a procedure: arguments checked, a deadline, errors as the module's docstring says."""
    signature = inspect.signature(function)
    name = f"{node.name}.{what}"

    def call(*args: Any, **kwargs: Any) -> Deferred[Any]:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ApplicationError(ApplicationError.INVALID_ARGUMENT, f"{name}: {error}") from None
        answer: Deferred[Any] = node._core().deferred(function, *args, **kwargs)
        if seconds is not None:
            within(answer, seconds, name)
        return answer.addErrback(_as_wamp, name)

    return call


def _as_wamp(failure: Failure, name: str) -> Any:
    error = failure.value
    if isinstance(error, ApplicationError):
        return failure
    if isinstance(error, SisockdaqError):
        uri, args, kwargs = error.to_wamp()
        raise ApplicationError(uri, *args, **kwargs)
    _log.failure("{name} failed", failure=failure, name=name)
    raise ApplicationError("sisockdaq.error.internal", f"{name} failed: {type(error).__name__}: {error}")


def _send(reply: Reply, node: Any, details: Any) -> Any:
    if details is None or details.progress is None:
        return wire.single_message(reply)
    return flow.send(node, details.progress, wire.messages(reply))


def _direct(core: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return core.deferred(function, *args, **kwargs).addCallback(one_message)

    return run


def _in_thread(node: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return node.in_thread(function, *args, **kwargs).addCallback(one_message)

    return run


def _size(values: Any) -> int:
    """Estimate the bytes of values as JSON."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return _NUMBER_BYTES * values.size
    if isinstance(values, str):
        return (1 if values.isascii() else _CHARACTER_BYTES) * len(values) + 3
    if isinstance(values, bytes):
        return len(values) + 3
    if isinstance(values, dict):
        return sum(_size(key) + _size(value) for key, value in values.items())
    if isinstance(values, list | tuple | np.ndarray):
        if len(values) and isinstance(values[0], str | bytes | list | tuple | dict | np.ndarray):
            return sum(map(_size, values))
        return _NUMBER_BYTES * len(values)
    return _NUMBER_BYTES

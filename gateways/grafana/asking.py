"""Asking the nodes for what a request wants: all in parallel, each under its own deadline.

The fields of one node are one question. A node that does not answer costs its own fields only; the questions to it
that wait at the same time are limited (`AT_ONCE`), so that it cannot take all threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.python.failure import Failure

from sisockdaq.client import Dataset, FieldData
from sisockdaq.errors import DeadlineExceeded, SisockdaqError
from sisockdaq.gateway import Gateway
from sisockdaq.schema import split_name

__all__ = ["AT_ONCE", "Answer", "Nodes"]

AT_ONCE = 6
"""Questions to one node under way; more wait for their turn, within their deadline."""

_MARGIN = 2.0
"""Time beyond a node's own deadline after which the thread that asks it is given up [s]."""

_MOST_NODES = 1000
"""Nodes of which turns are kept; names that do not exist count, too."""


@dataclass(slots=True)
class Answer:
    """Samples by full name; reasons for those that could not be had; warnings by full name."""

    data: dict[str, FieldData] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    notices: dict[str, list[str]] = field(default_factory=dict)


class Nodes:
    """The nodes of a gateway's network, asked in parallel.

    Parameters
    ----------
    gateway : Gateway
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turns: dict[str, DeferredSemaphore] = {}

    def ask(
        self, wanted: Mapping[str, int], start: float, end: float, *, deadline: float | None = None
    ) -> Deferred[Answer]:
        """Return an `Answer`; never fails.

        Parameters
        ----------
        wanted : mapping
            Most points, by full name.
        start, end : float
            UNIX times, or zero and less relative to now [s].
        deadline : float, optional
            Longest wait for one node [s]; default the gateway's, and a margin for its own words.
        """
        limit = self._gateway.options.deadline + _MARGIN if deadline is None else deadline
        groups: dict[tuple[str, int], list[str]] = {}
        for name, points in wanted.items():
            groups.setdefault((split_name(name)[0], points), []).append(name)
        answer = Answer()
        asked = [
            self._ask_one(node, names, points, start, end, limit).addCallbacks(
                _take, _refuse, callbackArgs=(answer, names), errbackArgs=(answer, names, node)
            )
            for (node, points), names in groups.items()
        ]
        return DeferredList(asked).addCallback(lambda _: answer)

    def _ask_one(
        self, node: str, names: list[str], points: int, start: float, end: float, limit: float
    ) -> Deferred[Dataset]:
        gateway = self._gateway
        if node not in self._turns and len(self._turns) >= _MOST_NODES:
            self._forget_idle()
        turn = self._turns.setdefault(node, DeferredSemaphore(AT_ONCE))
        asked: Deferred[Dataset] = turn.run(
            gateway.in_thread, gateway.client.get_each, names, start, end, max_points=points, deadline=limit
        )
        from sisockdaq.session import the_reactor

        def expired(_: Any, seconds: float) -> Any:
            raise DeadlineExceeded(f"{node} did not answer within {seconds:g} s")

        return asked.addTimeout(limit, the_reactor(), onTimeoutCancel=expired)

    def _forget_idle(self) -> None:
        self._turns = {node: turn for node, turn in self._turns.items() if turn.tokens < turn.limit}


def _take(dataset: Dataset, answer: Answer, names: Iterable[str]) -> None:
    answer.data.update(dataset)
    answer.errors.update({name: str(error) for name, error in dataset.errors.items()})
    for name in dataset:
        if dataset.problems:
            answer.notices.setdefault(name, []).extend(dataset.problems)


def _refuse(failure: Failure, answer: Answer, names: Iterable[str], node: str) -> None:
    error = failure.value
    reason = str(error) if isinstance(error, SisockdaqError) else f"{node}: {type(error).__name__}: {error}"
    answer.errors.update(dict.fromkeys(names, reason))

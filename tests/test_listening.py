"""A feed that was refused is named, holds up no other field, and is asked for again. (Real nodes show the rest.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from autobahn.wamp.exception import ApplicationError
from twisted.internet.defer import fail, succeed

from sisockdaq.listening import Listening


class Node:
    """A node's session, of which the router refuses the first subscription."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def uri(self, name: str) -> str:
        return name

    def is_attached(self) -> bool:
        return True

    def subscribe(self, handler: Any, topic: str) -> Any:
        self.topics.append(topic)
        refused = ApplicationError("wamp.error.not_authorized", "not yet")
        return fail(refused) if len(self.topics) == 1 else succeed(None)


def test_a_refused_feed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(type="number", feed=True, timeline="fast")
    monkeypatch.setattr(Listening, "_entry", lambda self, name: succeed(entry))
    monkeypatch.setattr(Listening, "_ask", lambda self, name: succeed(None))
    node = Node()
    listening = Listening(node)
    listening._follow({"ioc::i0": SimpleNamespace(), "other::i1": SimpleNamespace()})
    assert listening.problem == "ioc::i0 cannot be listened to: wamp.error.not_authorized"
    assert node.topics == ["consumer.ioc.feed.fast", "consumer.other.feed.fast"]
    listening.look()
    assert listening.problem == ""
    assert node.topics == ["consumer.ioc.feed.fast", "consumer.other.feed.fast", "consumer.ioc.feed.fast"]

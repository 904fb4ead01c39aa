"""Coming back for nodes that a script starts with autobahn's ``ApplicationRunner``, as sisock scripts do.

``ApplicationRunner`` connects once. A node that was given to it as a class is handed to it again after each loss. One
that was given as an object carries no runner: there the process ends, so that whatever started it starts it again; a
node that is deaf for ever is not among the choices.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from sisockdaq._wamp.link import FIRST_DELAY, LONGEST_DELAY, the_reactor

__all__ = ["RunnerLink"]

_log = Logger("sisockdaq.runner")


class RunnerLink:
    """What `Link` is to a node of a site, for a node of a script."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._ending = False
        self._trying = False
        self._joined = False
        the_reactor().addSystemEventTrigger("before", "shutdown", self._end)

    def joined(self) -> None:
        """The node has logged in."""
        self._joined = True

    def lost(self) -> None:
        """The node's connection has ended."""
        if self._ending or self._trying:
            return
        runner = getattr(self._node.config, "runner", None)
        if runner is None:
            _log.error("the connection to the router was lost; ending, to be started again")
            the_reactor().stop()
            return
        self._trying = True
        self._run(runner)

    def _end(self) -> None:
        self._ending = True

    @inlineCallbacks
    def _run(self, runner: Any) -> Any:
        delay = FIRST_DELAY
        while not self._ending:
            yield deferLater(the_reactor(), delay)
            self._joined = False
            try:
                protocol = yield runner.run(self._again, start_reactor=False)
                yield protocol.is_closed
            except Exception as error:  # Twisted and OpenSSL raise many kinds; each means "not connected".
                _log.info("cannot connect to the router at {url}: {error}", url=runner.url, error=str(error))
            delay = FIRST_DELAY if self._joined else min(2 * delay, LONGEST_DELAY)

    def _again(self, _config: Any) -> Any:
        self._node.renew()
        return self._node

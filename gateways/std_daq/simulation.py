"""The simulated detector: ``sisockdaq simulate`` for this site, as a process that the gateway starts and ends.

It simulates the detector as it is configured now, which need not be as the site file has it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from sisockdaq.detector.configuration import changed
from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.session import the_reactor

if TYPE_CHECKING:
    from sisockdaq.site import Site

__all__ = ["Simulator", "as_configured"]

ENDING = 5.0
"""Time that the process gets to end before it is killed [s]."""

REAPING = 0.2
"""Time between two looks whether the process has ended [s]."""

_Protocol: Any = ProcessProtocol


class _Process(_Protocol):  # type: ignore[misc]
    """Keeps the last words of the process, and tells of its end."""

    def __init__(self) -> None:
        self.words: deque[str] = deque(maxlen=5)
        self.ended: Deferred[str] = Deferred()
        self.over = False

    def outReceived(self, data: bytes) -> None:  # noqa: N802 - twisted's name
        """Remember the last lines."""
        self.words.extend(line for line in data.decode(errors="replace").splitlines() if line.strip())

    errReceived = outReceived  # noqa: N815 - twisted's name

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - twisted's name
        """Tell how it ended."""
        self.over = True
        failed = not isinstance(reason.value, ProcessDone)
        last = " ".join(self.words)
        self.ended.callback(f"ended: {last or str(reason.value)}" if failed else last)


class Simulator:
    """The simulator of one site; in the reactor's thread.

    Parameters
    ----------
    site : Site or None
    receiver : str
        The node that it sends to.
    allowed : bool
        Whether it may be started: its packets go where those of a real detector would.
    """

    def __init__(self, site: Site | None, receiver: str, *, allowed: bool) -> None:
        self._site = site
        self._receiver = receiver
        self._allowed = allowed
        self._process: _Process | None = None
        self._transport: Any = None
        self._asked: tuple[float, int] | None = None
        # A reactor outside the main thread hears of no child's end: the operating system tells the main one.
        self._reaping = LoopingCall(reapAllProcesses)
        self._message = ""

    @property
    def running(self) -> bool:
        """Whether it sends now."""
        return self._process is not None and not self._process.over

    def status(self) -> dict[str, Any]:
        """Return what it does."""
        rate, images = self._asked or (None, None)
        obstacle = self._obstacle()
        state = "UNAVAILABLE" if obstacle is not None else "RUNNING" if self.running else "IDLE"
        message = obstacle.message if obstacle is not None else self._message
        return {"state": state, "rate": rate, "n_images": images, "message": message}

    def check(self) -> None:
        """See whether it may be started.

        Raises
        ------
        ConfigurationError, SisockdaqError
            There is nothing to simulate, it is not allowed, or it runs already.
        """
        obstacle = self._obstacle()
        if obstacle is not None:
            raise obstacle
        if self.running:
            raise SisockdaqError("the simulator runs already", remedy="stop it first")

    def start(self, rate: float, images: int, config: Mapping[str, Any]) -> dict[str, Any]:
        """Start to send what a detector of that configuration would; raises as `check`."""
        self.check()
        assert self._site is not None
        command = [
            sys.executable, "-m", "sisockdaq.cli", "simulate", *self._site.arguments,
            "--node", self._receiver, *as_configured(self._site, self._receiver, config),
            "--rate", str(rate), "--frames", str(images),
        ]  # fmt: skip
        process = self._process = _Process()
        process.ended.addCallback(self._ended)
        self._asked, self._message = (rate, images), "sending"
        self._transport = the_reactor().spawnProcess(process, command[0], command, env=None)
        self._reaping.start(REAPING, now=False)
        return self.status()

    def stop(self) -> Deferred[dict[str, Any]]:
        """End it, if it runs; the Deferred fires when it has."""
        done: Deferred[dict[str, Any]] = Deferred()
        if not self.running:
            done.callback(self.status())
            return done
        assert self._process is not None
        self._signal(signal.SIGTERM)
        kill = the_reactor().callLater(ENDING, self._signal, signal.SIGKILL)

        def ended(words: str) -> str:
            if kill.active():
                kill.cancel()
            done.callback(self.status())
            return words

        self._process.ended.addCallback(ended)
        return done

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessExitedAlready):  # its end is about to be told
            self._transport.signalProcess(number)

    def _ended(self, words: str) -> str:
        self._message = words
        if self._reaping.running:
            self._reaping.stop()
        return words

    def _obstacle(self) -> SisockdaqError | None:
        if self._site is None or self._site.detector is None:
            return ConfigurationError("this gateway's site has no detector to simulate")
        if not self._allowed:
            return ConfigurationError(
                "simulation is not allowed here: its packets would mix with a real detector's",
                remedy="set simulation: true in the gateway's options where there is none",
            )
        return None


def as_configured(site: Site, receiver: str, config: Mapping[str, Any]) -> list[str]:
    """Return command-line arguments by which a site's detector and ports are those of a configuration.

    Raises
    ------
    ConfigurationError
        The receiver takes no packets of such a detector.
    """
    entries = site.entry(receiver).options.get("udp")
    if site.detector is None or not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{receiver} takes no UDP packets", remedy="simulate where a detector_receiver is")
    addresses = [(str(entry.get("address", "127.0.0.1")), int(entry["port"])) for entry in entries]
    wanted = {key: value for key, value in config.items() if value is not None and key != "writer_user_id"}
    detector, ports = changed(site.detector, addresses, wanted)
    arguments = []
    if detector != site.detector:
        arguments += ["--set", f"detector={detector.model_dump_json(exclude_unset=True)}"]
    if ports != addresses:
        udp = [{"address": address, "port": port} for address, port in ports]
        arguments += ["--set", f"nodes.{receiver}.udp={json.dumps(udp)}"]
    return arguments

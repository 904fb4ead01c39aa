"""Processes start, die, come back and end as the supervisor promises; nothing here waits for a guessed time."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.errors import DeadlineExceeded, SisockdaqError
from sisockdaq.supervisor import CONFIGURATION_ERROR, Part, PartStatus, RestartPolicy, Supervisor

DEADLINE = 20.0

PREAMBLE = """
import os, signal, socket, subprocess, sys
def say(text):
    to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    to.sendto(text.encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""
READY = 'say("READY=1")\nsignal.pause()\n'


def part(name: str, code: str, stage: int = 2) -> Part:
    return Part(name, "script", (sys.executable, "-c", PREAMBLE + code), stage)


class Watched:
    """A supervisor whose changes can be waited for."""

    def __init__(self, parts: list[Part], logs: Path, policy: RestartPolicy | None = None) -> None:
        self.changes: queue.Queue[PartStatus] = queue.Queue()
        self.history: list[PartStatus] = []
        self.supervisor = Supervisor(parts, logs, policy=policy, on_change=self.changes.put)

    def wait(self, condition: Callable[[PartStatus], bool]) -> PartStatus:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                change = self.changes.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"never happened; seen: {self.history}") from None
            self.history.append(change)
            if condition(change):
                return change

    def wait_state(self, name: str, state: str) -> PartStatus:
        return self.wait(lambda change: (change.name, change.state) == (name, state))


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def start(*parts: Part, policy: RestartPolicy | None = None) -> Watched:
        watched = Watched(list(parts), tmp_path / "logs", policy)
        made.append(watched)
        watched.supervisor.start()
        return watched

    yield start
    for watched in made:
        watched.supervisor.stop(grace=5.0)


def gone(pid: int) -> None:
    """Return once the process has ended; a zombie has."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(DEADLINE)
    except psutil.NoSuchProcess:
        return


def test_a_part_is_up_when_it_says_so(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", READY), part("b", 'say("STATUS=thinking")\n' + READY))
    watched.supervisor.wait_ready(DEADLINE)
    states = {status.name: status for status in watched.supervisor.status()}
    assert {status.state for status in states.values()} == {"up"}
    assert states["b"].message == "thinking"
    assert all(status.pid is not None and psutil.pid_exists(status.pid) for status in states.values())


def test_a_killed_part_comes_back(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", READY))
    first = watched.wait_state("a", "up").pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    waiting = watched.wait_state("a", "waiting")
    assert waiting.message.startswith("ended by SIGKILL")
    second = watched.wait_state("a", "up")
    assert second.pid != first
    assert second.restarts == 1


def test_delays_grow_for_a_part_that_keeps_dying(supervise: Callable[..., Watched]) -> None:
    policy = RestartPolicy(delays=(0.0, 0.05, 3600.0))
    watched = supervise(part("a", 'say("STATUS=no luck")\nsys.exit(3)\n'), policy=policy)
    for _ in range(3):
        waiting = watched.wait_state("a", "waiting")
    assert waiting.restarts == 3
    assert waiting.message == "ended with status 3; no luck"
    watched.supervisor.stop()
    assert watched.supervisor.status()[0].state == "stopped"


def test_a_configuration_error_is_final(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", f'say("STATUS=bins: must be positive")\nsys.exit({CONFIGURATION_ERROR})\n'))
    with pytest.raises(SisockdaqError, match="a: bins: must be positive"):
        watched.supervisor.wait_ready(DEADLINE)
    assert watched.supervisor.status()[0].restarts == 0


def test_a_missing_program_is_final(supervise: Callable[..., Watched]) -> None:
    watched = supervise(Part("a", "program", ("/nonexistent/program",)))
    with pytest.raises(SisockdaqError, match="No such file"):
        watched.supervisor.wait_ready(DEADLINE)


def test_parts_that_never_get_ready_are_named(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", READY), part("b", 'say("STATUS=waiting for the router")\nsignal.pause()\n'))
    watched.wait(lambda change: change.message == "waiting for the router")
    with pytest.raises(DeadlineExceeded, match=r"not ready .*b \(waiting for the router\)"):
        watched.supervisor.wait_ready(0.05)


def test_nodes_end_before_the_router(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("router", READY, stage=0), part("node", READY, stage=2))
    watched.supervisor.wait_ready(DEADLINE)
    watched.supervisor.stop()
    while not watched.changes.empty():
        watched.history.append(watched.changes.get())
    ends = [(change.name, change.state) for change in watched.history if change.state in ("stopping", "stopped")]
    assert ends == [("node", "stopping"), ("node", "stopped"), ("router", "stopping"), ("router", "stopped")]


def test_a_part_that_ignores_sigterm_is_killed(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY))
    pid = watched.wait_state("a", "up").pid
    watched.supervisor.stop(grace=0.2)
    assert pid is not None
    gone(pid)


def test_what_a_part_started_ends_with_it(supervise: Callable[..., Watched]) -> None:
    child = 'child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])\n'
    watched = supervise(part("a", child + 'say(f"STATUS={child.pid}")\n' + READY))
    up = watched.wait_state("a", "up")
    assert up.pid is not None
    os.kill(up.pid, signal.SIGKILL)
    watched.wait_state("a", "waiting")
    gone(int(up.message))


def test_a_last_part_waits_for_all_others(supervise: Callable[..., Watched]) -> None:
    last = Part("b", "script", (sys.executable, "-c", PREAMBLE + READY), last=True)
    watched = supervise(last, part("a", READY))
    watched.wait_state("b", "up")
    ups = [change.name for change in watched.history if change.state == "up"]
    assert ups == ["a", "b"]
    first = watched.supervisor.status()[0].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert watched.wait_state("b", "up").pid != first


def test_restart_on_request(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", READY))
    first = watched.wait_state("a", "up").pid
    watched.supervisor.restart("a")
    assert watched.wait_state("a", "up").pid != first


def test_output_goes_to_the_part_s_log(supervise: Callable[..., Watched], tmp_path: Path) -> None:
    watched = supervise(part("a", 'print("hello", flush=True)\n' + READY))
    watched.wait_state("a", "up")
    assert watched.supervisor.log("a").read_text() == "hello\n"


ORPHANS = """
import os, sys
from pathlib import Path
from sisockdaq.supervisor import Part, Supervisor
child = "from sisockdaq.supervisor import end_with_parent as e; from sisockdaq.notify import notify_ready as r;"
child += "import signal; e(); r(); signal.pause()"
with Supervisor([Part("a", "script", (sys.executable, "-c", child))], Path(sys.argv[1])) as supervisor:
    supervisor.wait_ready(20)
    print(supervisor.status()[0].pid, flush=True)
    sys.stdin.read()
"""


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], DEADLINE)[0], "the supervisor did not start"
        child = int(process.stdout.readline())
        process.kill()
    gone(child)


def test_stop_may_be_called_again_and_from_any_thread(supervise: Callable[..., Watched]) -> None:
    watched = supervise(part("a", READY))
    watched.wait_state("a", "up")
    thread = threading.Thread(target=watched.supervisor.stop)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    watched.supervisor.stop()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.integers(0, 20))
def test_the_last_delay_holds_for_ever(delays: list[float], failures: int) -> None:
    policy = RestartPolicy(delays=tuple(delays))
    expected = delays[failures] if failures < len(delays) else delays[-1]
    assert policy.delay(failures) == expected

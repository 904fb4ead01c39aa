"""Parts of a running site are killed: the network is whole again without a hand, and the ledger still balances."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sisockdaq.cli._trial import Trial, example_site, private_site, trial
from sisockdaq.cli.acceptance import start_when_attached
from sisockdaq.client import Client, Run
from sisockdaq.errors import SisockdaqError
from sisockdaq.supervisor import PartStatus
from sisockdaq.testing.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

DEADLINE = 60.0
NODES = {"receiver", "integrator", "writer", "archive"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISOCKDAQ_STATE", str(tmp_path_factory.mktemp("state")))
        with trial(private_site(example_site("demo"), "recovery")) as running:
            yield running


@pytest.fixture
def packets(site: Trial) -> Iterator[None]:
    """A simulator that sends until the test ends."""
    command = [sys.executable, "-m", "sisockdaq.cli", "simulate", *site.site.arguments, "--rate", "50"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    yield
    process.terminate()
    process.wait(DEADLINE)


@pytest.fixture
def client(site: Trial) -> Iterator[Client]:
    with Client(site.site.site, control=True) as connected:
        yield connected


def part(site: Trial, name: str) -> PartStatus:
    return next(status for status in site.supervisor.status() if status.name == name)


def kill(site: Trial, name: str) -> None:
    """Kill a part; return when the supervisor has a new one up."""
    before = part(site, name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(
        lambda: part(site, name).state == "up" and part(site, name).pid != before.pid, DEADLINE, f"{name} is up again"
    )


def whole(client: Client) -> bool:
    """Whether the hub lists every node and each of them answers."""
    try:
        rows = client.nodes()
        return {row.name for row in rows} == NODES and all(len(client.fields(name)) for name in NODES)
    except SisockdaqError:
        return False


def written(run: Run) -> int:
    try:
        return int(run.status()["frames_written"])
    except SisockdaqError:
        return 0


def goes_on(run: Run) -> None:
    """Return when more frames are in the file than now."""
    before = written(run)
    wait_until(lambda: written(run) > before, DEADLINE, "more frames are written")


@pytest.mark.usefixtures("packets")
def test_the_network_heals_and_the_ledger_balances(site: Trial, client: Client) -> None:
    run = start_when_attached(client, site, "healed", None)
    goes_on(run)
    for name in ("hub", "router", "archive", "integrator"):
        kill(site, name)
        wait_until(lambda: whole(client), DEADLINE, f"the network is whole after {name} was killed")
    goes_on(run)
    run.stop()
    ledger = run.ledger
    assert ledger.balance() == []
    assert ledger.packets_lost == 0
    assert ledger.frames_complete == ledger.frames_expected > 0
    assert ledger.reported("frames_written") == ledger.frames_expected
    integrator = ledger.consumers["integrator"]
    assert integrator.taken + integrator.missed + integrator.dropped + integrator.held == ledger.frames_expected


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("victim", ["writer", "receiver"])
def test_after_the_death_of_writer_or_receiver_the_next_acquisition_works(
    site: Trial, client: Client, victim: str
) -> None:
    run = start_when_attached(client, site, f"cut_{victim}", None)
    goes_on(run)
    kill(site, victim)
    wait_until(lambda: whole(client), DEADLINE, f"the network is whole after {victim} was killed")
    wait_until(lambda: ready(client, site), DEADLINE, "the writer is ready")
    after = start_when_attached(client, site, f"after_{victim}", 20)
    after.wait(DEADLINE, progress=False)
    assert after.ledger.balance() == []
    counters = client.call_control("receiver", "status")["counters"]
    assert after.ledger.reported("frames_written") == 20, counters
    cut = Path(str(after.status()["master"])).parent.glob(f"cut_{victim}_data_*.h5*")
    assert list(cut), "what was written before must still be there"


def ready(client: Client, site: Trial) -> bool:
    """Whether no acquisition is under way, at the writer or at the receiver; an orphaned one is stopped."""
    writer, receiver = site.node("file_writer"), site.node("detector_receiver")
    try:
        if client.call_control(receiver, "status")["acquisition"]["acquisition"] is not None:
            client.call_control(writer, "stop")
            return False
        return bool(client.call_control(writer, "status")["state"] == "READY")
    except SisockdaqError:
        return False

"""``sisockdaq demo`` (``./run demo``): the example site with a simulated detector, live or one judged acquisition."""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sisockdaq.cli._options import AsJson, Plain, Set
from sisockdaq.cli._trial import example_site, private_site, trial
from sisockdaq.cli.packets import udp_receiver
from sisockdaq.cli.table import Style, chosen_style, show_site
from sisockdaq.cli.up import prepared, site_parts, until_signal
from sisockdaq.errors import SisockdaqError
from sisockdaq.notify import notify_ready
from sisockdaq.site import Site, load_site
from sisockdaq.supervisor import Part, Supervisor

__all__ = ["add_commands"]

FRAMES = 1000
"""Frames of the acquisition that the live demonstration takes by itself."""

REPLAY_RATE = 2.0
"""Frames a second of a replay: half a second to send 40 MB suits the kernel's usual receive buffers too."""

COMMANDS = (
    "source .venv/bin/activate",
    "sisockdaq nodes",
    "sisockdaq plot integrator::curve",
    "sisockdaq acquire run_0100 --frames 500",
)


def add_commands(app: typer.Typer) -> None:
    """Add ``demo``."""
    app.command()(demo)


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Take one acquisition without a terminal and judge it.")
    ] = False,
    frames: Annotated[int, typer.Option(help="Frames of the acquisition.", min=1)] = FRAMES,
    rate: Annotated[float, typer.Option(help="Frames a second.", min=0.1)] = 100.0,
    loss: Annotated[float, typer.Option(help="Share of packets that the simulator leaves out.", min=0, max=1)] = 0.0,
    recording: Annotated[
        Path | None, typer.Option("--replay", help="With --check: recorded packets of an EIGER 9M instead.")
    ] = None,
    site: Annotated[Path | None, typer.Option(help="Another site file. Default: sites/demo, or sites/eiger9m.")] = None,
    settings: Set = None,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Run a whole site on this machine, with a simulated detector.

    With --check: one finite acquisition. The exit status is 0 only if the ledger balances and every frame reached the
    file and the archive; the last line is one JSON object with the counts.
    """
    if check or recording is not None:
        sys.exit(_check(site, settings or [], frames, rate, recording))
    where = load_site(site or example_site("demo"), check=None, overrides=settings or [])
    udp_receiver(where)  # told before anything is started
    _live(where, frames, rate, loss, chosen_style(plain=plain, as_json=as_json))


def _live(site: Site, frames: int, rate: float, loss: float, style: Style) -> None:
    command = (sys.executable, "-m", "sisockdaq.cli", "simulate", *site.arguments, "--rate", f"{rate:g}")
    simulator = Part("simulator", "simulator", (*command, "--loss", f"{loss:g}"), stage=3, last=True)
    with (
        until_signal() as stop,
        prepared(site),
        Supervisor([*site_parts(site), simulator], site.state.logs) as supervisor,
    ):
        first = threading.Thread(target=_first_acquisition, args=(site, frames, stop), daemon=True)

        def on_ready() -> None:
            notify_ready()
            first.start()

        show_site(site, supervisor, stop, style=style, on_ready=on_ready, commands=COMMANDS)


def _first_acquisition(site: Site, frames: int, stop: threading.Event) -> None:
    """Take one acquisition, so that there is something to look at; tried again while the parts find one another."""
    from sisockdaq.client import Client

    while not stop.wait(1.0):
        try:
            with Client(site.site, control=True) as client:
                taken = {str(entry.get("acquisition")) for entry in client.acquisitions()}
                client.acquire(_free_name(taken), frames, wait=False)
                return
        except SisockdaqError:
            continue  # the table shows what is not there yet


def _free_name(taken: set[str]) -> str:
    number = 1
    while (name := f"run_{number:04d}") in taken:
        number += 1
    return name


def _check(folder: Path | None, settings: list[str], frames: int, rate: float, recording: Path | None) -> int:
    """Take and judge one acquisition; return the exit status."""
    from sisockdaq.cli.acceptance import Plan, carry_out

    plan = Plan(frames, rate)
    if recording is not None:
        plan = replace(plan, frames=_recorded_frames(recording), rate=REPLAY_RATE, replay=recording.absolute())
    example = example_site("eiger9m" if recording is not None else "demo")
    site = private_site(folder or example, "check", settings)
    udp_receiver(site)  # told before anything is started
    _say(f"site {site.site}, state in {site.state.path}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the blocks below end what they started
    with trial(site) as running:
        outcome = carry_out(running, plan, _say)
    for problem in outcome.problems:
        _say(f"PROBLEM: {problem}")
    sys.stdout.write(json.dumps(outcome.result) + "\n")
    return 1 if outcome.problems else 0


def _recorded_frames(recording: Path) -> int:
    from sisockdaq.detector.recording import Recording

    with Recording(recording) as recorded:
        return len(recorded.frames)


def _say(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()

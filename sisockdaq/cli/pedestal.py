"""``sisockdaq pedestal``: lead a person, or a script, through the dark runs of a JUNGFRAU.

The receiver takes the darks and makes the pedestal; this only asks for one run after the other, says what is to be
done at the detector, and looks whether the detector did it.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sisockdaq.cli._options import AsJson
from sisockdaq.cli._reading import Network, connect, print_json
from sisockdaq.errors import AcquisitionRefused, ConfigurationError, NodeNotFound

if TYPE_CHECKING:
    from sisockdaq.client import Client

__all__ = ["add_commands"]

_GAIN_MODES = {"G0": "dynamic", "G1": "forceswitchg1", "G2": "forceswitchg2"}
"""slsDetector's words for the settings in which darks of each stage are taken."""

_POLL = 0.2
_SIMULATED_RATE = 100.0
_LEAST_SHARE = 0.5
"""Share of the pixels in the stage below which the detector is in another one."""


def add_commands(app: typer.Typer) -> None:
    """Add ``pedestal``."""
    app.command()(pedestal)


def pedestal(
    node: Annotated[str | None, typer.Option("--node", help="The receiver. Default: the only one.")] = None,
    frames: Annotated[int, typer.Option(help="Darks of each stage.", min=1)] = 1000,
    stages: Annotated[str, typer.Option(help="Which stages to take, in this order.")] = "G0,G1,G2",
    file: Annotated[
        str | None, typer.Option(help="File, below the data root. Default: the one that frames are converted with.")
    ] = None,
    switch: Annotated[
        str | None,
        typer.Option(
            help="Command that sets the detector's gain; {stage} becomes G0, G1 or G2, and {mode} slsDetector's name.",
            metavar="COMMAND",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: for scripts.")] = False,
    update: Annotated[
        bool, typer.Option(help="Add the darks to the pedestal there is, instead of replacing it.")
    ] = False,
    window: Annotated[
        int | None, typer.Option(help="With --update: count what is known as so many darks, at most.", min=1)
    ] = None,
    patience: Annotated[float, typer.Option(help="Longest wait for a dark, in seconds.", min=1)] = 30.0,
    simulate: Annotated[bool, typer.Option(help="Send simulated darks to the receiver, here.")] = False,
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Take darks in each gain stage of a JUNGFRAU, and make a pedestal of them."""
    chosen = [stage.strip().upper() for stage in stages.split(",") if stage.strip()]
    if not chosen or any(stage not in _GAIN_MODES for stage in chosen):
        raise ConfigurationError(f'"{stages}" names no gain stages', remedy="--stages G0,G1,G2, or some of them")
    if switch is not None:
        _command(switch, chosen[0])
    with connect(site, control=True) as client:
        receiver = node or _only_receiver(client)
        run = _Runs(client, receiver, frames, patience, simulate, quiet=as_json)
        client.call_control(receiver, "clear_darks")
        try:
            for number, stage in enumerate(chosen, 1):
                run.tell(f"[{number}/{len(chosen)}] {stage}")
                while not _one_stage(run, stage, switch, ask=not (yes or simulate)):
                    run.tell("  once more:")
        except BaseException:
            with contextlib.suppress(Exception):  # the reason for the end is what counts
                client.call_control(receiver, "stop_dark")
            raise
        made = client.call_control(receiver, "save_pedestal", file, update, window, deadline=60.0)
    print_json(made) if as_json else _show(made)


def _one_stage(run: _Runs, stage: str, switch: str | None, *, ask: bool) -> bool:
    """Take the darks of one stage; False when a person is to try again."""
    if switch is not None:
        subprocess.run(_command(switch, stage), check=True)
    elif ask:
        mode = _GAIN_MODES[stage]
        typer.echo(
            f"  close the shutter, set the gain mode (sls_detector_put gainmode {mode}), start the detector", err=True
        )
        typer.prompt("  then press Enter", default="", show_default=False, prompt_suffix=" ", err=True)
    status = run.take(stage)
    share = float(status["shares"].get(stage, 0.0))
    if share >= _LEAST_SHARE:
        run.tell(f"  {status['frames']} darks, {100 * share:.2f} % of the pixels in {stage}{_left_out(status)}")
        return True
    reason = f"the detector is not in {stage}: {100 * share:.1f} % of the pixels are"
    if not ask:
        raise AcquisitionRefused(reason, remedy="set its gain mode before, or give --switch COMMAND")
    typer.echo(f"  {reason}", err=True)
    return False


def _left_out(status: dict[str, Any]) -> str:
    told = [f"{status[kind]} {kind}" for kind in ("partial", "skipped") if status[kind]]
    return f" ({', '.join(told)})" if told else ""


class _Runs:
    """Asks the receiver for dark runs, and shows how they go."""

    def __init__(
        self, client: Client, receiver: str, frames: int, patience: float, simulate: bool, *, quiet: bool
    ) -> None:
        self._client, self._receiver, self._frames = client, receiver, frames
        self._patience, self._simulate, self._quiet = patience, simulate, quiet

    def tell(self, text: str) -> None:
        """Say something to a person."""
        if not self._quiet:
            typer.echo(text, err=True)

    def take(self, stage: str) -> dict[str, Any]:
        """Take one run; return its status at the end."""
        status: dict[str, Any] = self._client.call_control(
            self._receiver, "take_dark", stage, self._frames, deadline=60.0
        )
        detector = status.pop("detector")
        with self._sending(stage, detector), self._bar(stage) as show:
            last, since = -1, time.monotonic()
            while status["active"]:
                time.sleep(_POLL)
                status = self._client.call_control(self._receiver, "dark_status")
                show(status)
                if status["frames"] != last:
                    last, since = status["frames"], time.monotonic()
                elif time.monotonic() - since > self._patience:
                    raise AcquisitionRefused(
                        f"no dark came for {self._patience:g} s ({status['frames']} of {self._frames}"
                        f"{_left_out(status)})",
                        remedy="start the detector, with enough frames; look at the receiver's packet_rate",
                    )
        return status

    @contextlib.contextmanager
    def _sending(self, stage: str, detector: dict[str, Any]) -> Iterator[None]:
        """Send simulated darks while the context lasts, where that is wanted."""
        if not self._simulate:
            yield
            return
        from sisockdaq.conversion.simulated import dark_simulation
        from sisockdaq.detector.description import DetectorOptions
        from sisockdaq.detector.simulator import simulate

        ports = self._client.call_control(self._receiver, "status")["ports"]
        described = DetectorOptions.checked(**detector)
        simulation = dark_simulation(described, stage)
        stop = threading.Event()
        thread = threading.Thread(
            target=simulate,
            args=(described, [("127.0.0.1", port) for port in ports]),
            kwargs={"frames": None, "rate": _SIMULATED_RATE, "simulation": simulation, "stop": stop},
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.contextmanager
    def _bar(self, stage: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        if self._quiet:
            yield lambda status: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"darks in {stage}", total=self._frames)
            yield lambda status: bar.update(task, completed=status["frames"])


def _only_receiver(client: Client) -> str:
    found = []
    for row in client.nodes():
        with contextlib.suppress(NodeNotFound):
            client.call_control(row.name, "dark_status")
            found.append(row.name)
    if len(found) != 1:
        what = f"receivers that take darks: {', '.join(found)}" if found else "no receiver of a JUNGFRAU is here"
        raise ConfigurationError(what, remedy="name one with --node" if found else "start the site")
    return str(found[0])


def _command(template: str, stage: str) -> list[str]:
    """Return the words of the command that sets a stage."""
    try:
        return [word.replace("{stage}", stage).replace("{mode}", _GAIN_MODES[stage]) for word in shlex.split(template)]
    except ValueError as error:
        raise ConfigurationError(f"--switch {template}: {error}") from None


def _show(made: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    titles = ("stage", "darks", "level [ADU]", "noise [ADU]", "dead", "noisy", "in another stage")
    for title in titles:
        table.add_column(title, justify="left" if title == "stage" else "right")
    for stage in _GAIN_MODES:
        if stage in made:
            about = made[stage]
            numbers = [f"{about['frames']}", f"{about['mean']:.1f}", f"{about['noise']:.2f}"]
            table.add_row(stage, *numbers, *(str(about[kind]) for kind in titles[4:]))
    Console().print(table)
    share = 100 * made["bad"] / made["pixels"]
    typer.echo(f"{made['bad']} of {made['pixels']} pixels are bad ({share:.2f} %)")
    typer.echo(f"{made['file']}{', and frames are converted with it from now on' if made['applied'] else ''}")

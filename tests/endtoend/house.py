"""A running site as the end-to-end tests use it: packets in, acquisitions through it, parts killed and awaited."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (gives h5py the filter of the files)
import numpy as np
import numpy.typing as npt

from sisockdaq.cli._trial import Trial
from sisockdaq.cli.acceptance import start_when_attached
from sisockdaq.cli.packets import udp_targets
from sisockdaq.client import Client, Run
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.simulator import Disturbance, Simulated, Simulation, simulate
from sisockdaq.errors import SisockdaqError
from sisockdaq.supervisor import PartStatus
from sisockdaq.testing.waiting import wait_until

DEADLINE = 60.0
"""Bears a machine that does much else; what is awaited usually comes within a second or two."""

SEED = 5

_names = itertools.count(1)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition is true; an error of the network on the way counts as not yet."""

    def quietly() -> Any:
        try:
            return condition()
        except SisockdaqError:
            return None

    return wait_until(quietly, DEADLINE, what)


class Sending:
    """Frames that go out from a thread."""

    def __init__(self, send: Callable[..., Simulated], frames: int | None) -> None:
        self.sent = Simulated(0)
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._error: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, args=(send, frames), daemon=True)
        self._thread.start()

    def _run(self, send: Callable[..., Simulated], frames: int | None) -> None:
        try:
            self._note(send(frames, self._note, self._stop))
        except BaseException as error:  # the edge of a thread; raised again in `wait`
            self._error = error
        with self._moved:
            self._over = True
            self._moved.notify_all()

    def _note(self, sent: Simulated) -> None:
        with self._moved:
            self.sent = sent
            self._moved.notify_all()

    def reach(self, frames: int) -> None:
        """Return when so many frames have gone out."""
        with self._moved:
            assert self._moved.wait_for(lambda: self.sent.frames >= frames or self._over, DEADLINE)
        assert self.sent.frames >= frames, self._error

    def wait(self) -> Simulated:
        """Return what was sent, when all of it was."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "sending did not end"
        if self._error is not None:
            raise self._error
        return self.sent

    def halt(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE)

    def stop(self) -> Simulated:
        self._stop.set()
        return self.wait()


@dataclass
class House:
    """The site of this folder's tests, with a client that may control."""

    trial: Trial
    client: Client
    simulation: Simulation
    next_frame: int = 1
    sendings: list[Sending] = field(default_factory=list)

    @property
    def detector(self) -> DetectorOptions:
        assert self.trial.site.detector is not None
        return self.trial.site.detector

    @property
    def nodes(self) -> set[str]:
        return set(self.trial.site.nodes)

    def start(self, frames: int | None = None, name: str = "run") -> Run:
        """Start an acquisition under a new name, with writer and integrator attached."""
        return start_when_attached(self.client, self.trial, f"{name}_{next(_names)}", frames)

    def send(self, frames: int | None, rate: float = 200.0, disturbance: Disturbance | None = None) -> Sending:
        """Send frames from a thread, under numbers that go on."""
        first = self.next_frame
        self.next_frame += 100_000 if frames is None else frames

        def send(count: int | None, on_frame: Callable[[Simulated], None], stop: threading.Event) -> Simulated:
            return simulate(
                self.detector,
                udp_targets(self.trial.site),
                frames=count,
                rate=rate,
                first_frame=first,
                seed=first,
                disturbance=disturbance,
                simulation=self.simulation,
                on_frame=on_frame,
                stop=stop,
            )

        self.sendings.append(Sending(send, frames))
        return self.sendings[-1]

    def tidy(self) -> None:
        """End what a test has left running, so that its failure stays its own."""
        for sending in self.sendings:
            sending.halt()
        self.sendings.clear()
        with suppress(SisockdaqError):
            if self.under_way():
                self.client.call_control("writer", "stop")

    def acquire(self, frames: int, *, disturbance: Disturbance | None = None) -> tuple[Run, Simulated]:
        """Take a whole acquisition; return it and what was sent."""
        run = self.start(frames)
        sent = self.send(frames, disturbance=disturbance).wait()
        run.wait(DEADLINE, progress=False)
        return run, sent

    # --- parts -------------------------------------------------------------------------------------------------

    def part(self, name: str) -> PartStatus:
        return next(status for status in self.trial.supervisor.status() if status.name == name)

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a part; return its process number."""
        pid = self.part(name).pid
        assert pid is not None, f"{name} does not run"
        os.kill(pid, number)
        return pid

    def kill(self, name: str) -> int:
        """Kill a part with SIGKILL; return the number of the process that was."""
        return self.signal(name, signal.SIGKILL)

    def wait_back(self, name: str, killed: int) -> None:
        """Return when the supervisor has the part up in another process."""
        wait_until(
            lambda: self.part(name).state == "up" and self.part(name).pid not in (None, killed),
            DEADLINE,
            f"{name} to be up again",
        )

    def wait_whole(self) -> None:
        """Return when the hub lists every node and each of them answers."""
        wait_for(self.is_whole, "the network to be whole")

    def is_whole(self) -> bool:
        listed = {row.name for row in self.client.nodes()}
        return listed == self.nodes and all(len(self.client.fields(name)) for name in self.nodes)

    def consumers(self) -> dict[str, dict[str, Any]]:
        """Return the receiver's account of who takes its frames."""
        return dict(self.client.call_control("receiver", "status")["ring"]["consumers"])

    @contextmanager
    def integrating(self, **changes: Any) -> Iterator[dict[str, Any]]:
        """Have the integrator work by other settings while the block runs; give out the epoch that they begin."""
        before = self.client.call_control("integrator", "get_settings")
        yield self.configure(**changes)
        self.settle()
        self.configure(**{name: before[name] for name in before})

    def configure(self, **changes: Any) -> dict[str, Any]:
        """Change the integrator's settings; return when the writer takes what it gives out now."""
        epoch = self.client.call_control("integrator", "configure", changes, deadline=120.0)

        def attached() -> bool:
            results = self.client.call_control("integrator", "status")["results"]
            return results["consumers"].get("writer", {}).get("state") == "attached"

        wait_for(attached, "the writer to take results")
        return dict(epoch)

    def settle(self) -> None:
        """Return when no acquisition is under way, at the writer or at the receiver."""
        wait_for(lambda: not self.under_way(), "no acquisition to be under way")

    def under_way(self) -> str | None:
        """Return the name of the acquisition that receiver or writer is in."""
        at_receiver = self.client.call_control("receiver", "status")["acquisition"]["acquisition"]
        writer = self.client.call_control("writer", "status")
        return at_receiver or (writer["acquisition"] if writer["state"] != "READY" else None)

    @contextmanager
    def stopped(self, name: str) -> Iterator[int]:
        """Hold a part with SIGSTOP while the block runs."""
        pid = self.signal(name, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):  # it may have been killed meanwhile
                os.kill(pid, signal.SIGCONT)

    # --- what came of it ---------------------------------------------------------------------------------------

    def archived(self, run: Run | str, frames: int | None = None) -> dict[str, Any]:
        """Return the archive's entry of an acquisition, once it has so many frames."""
        name = run if isinstance(run, str) else run.name

        def found() -> dict[str, Any] | None:
            for entry in self.client.acquisitions():
                if entry["acquisition"] == name and entry["frames"] >= (frames or 0):
                    return entry
            return None

        return dict(wait_for(found, f"the archive to have {frames} frames of {name}"))

    def pixels_of(self, packets: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return where the pixels of these packets are (4 rows of 1024 pixels each, one packet below the other)."""
        mask = np.zeros(self.detector.shape, bool)
        for packet in packets:
            mask[4 * packet : 4 * packet + 4] = True
        return mask

    @property
    def images_per_file(self) -> int:
        return int(self.trial.site.nodes["writer"].options["images_per_file"])

    def files(self, acquisition: str) -> list[Path]:
        """Return the data files of an acquisition, the open one included."""
        return sorted((self.trial.site.resolve_output("runs")).glob(f"{acquisition}_data_*"))


def check_images(simulation: Simulation, master: str | Path, numbers: Sequence[int]) -> None:
    """Compare every image of an acquisition with what was sent, as any HDF5 reader sees it through the master file."""
    images = images_of(master)
    assert len(images) == len(numbers)
    for image, number in zip(images, numbers, strict=True):
        assert (image == simulation.image(number)).all(), f"frame {number} is not what was sent"


def images_of(master: str | Path) -> npt.NDArray[Any]:
    """Return all images of an acquisition, in order."""
    with h5py.File(master) as file:
        data = file["entry/data"]
        parts = [data[name][()] for name in sorted(data) if name.startswith("data_")]
    return np.concatenate(parts)


def series_of(master: str | Path, source: str, name: str) -> npt.NDArray[Any]:
    """Return a per-frame series of an acquisition from its data files, in order."""
    folder = Path(master).parent
    prefix = Path(master).name.removesuffix("_master.h5")
    parts = []
    for path in sorted(folder.glob(f"{prefix}_data_*.h5")):
        with h5py.File(path) as file:
            parts.append(file[f"entry/series/{source}/{name}"][()])
    return np.concatenate(parts)

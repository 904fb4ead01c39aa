"""One finite acquisition through a whole site, judged: what ``./run demo --check`` does.

The site runs on free ports and under a name of its own. An acquisition is started through the writer, packets are sent
over loopback UDP by a process of their own, and when all is settled the ledger, the file and the archive are compared.
It passes only if the ledger balances and every frame that was sent was integrated, is in the file and is served by the
archive.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sisockdaq.cli._trial import Trial
from sisockdaq.cli.packets import udp_receiver
from sisockdaq.errors import AcquisitionRefused, DeadlineExceeded, SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.client import Client, Run
    from sisockdaq.frames.ledger import Ledger

__all__ = ["Arrivals", "Outcome", "Plan", "carry_out", "start_when_attached"]

ATTACH_DEADLINE = 30.0
"""Time for all consumers to find their sources after the parts are up [s]."""

FLIGHT_DEADLINE = 10.0
"""Time after the last packet in which the acquisition must end by itself [s]; after it, it is stopped."""

ARCHIVE_DEADLINE = 30.0
"""Time for the archive to find the closed files [s]."""

_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to take: `frames` simulated frames at `rate`, or the frames of a recording."""

    frames: int
    rate: float
    replay: Path | None = None

    def arguments(self) -> list[str]:
        """Return the command that sends the packets, and its arguments."""
        if self.replay is not None:
            return ["replay", str(self.replay), "--rate", f"{self.rate:g}"]
        return ["simulate", "--frames", str(self.frames), "--rate", f"{self.rate:g}"]

    @property
    def deadline(self) -> float:
        """Longest time that sending may take [s], making the packets included."""
        return 60.0 + 3 * self.frames / self.rate


@dataclass(slots=True)
class Outcome:
    """What came of it; ``problems`` is empty when all is well."""

    result: dict[str, Any]
    problems: list[str] = field(default_factory=list)


class Arrivals:
    """When each frame's event came to a client: listens from the block's beginning to its end."""

    def __init__(self, client: Client, receiver: str) -> None:
        self._client = client
        self._receiver = receiver
        self._watch = client.watch(f"{receiver}::frame_number", timeout=1.0)
        self._arrived: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._listen, name="arrivals", daemon=True)
        self._stopped = threading.Event()

    def __enter__(self) -> Arrivals:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(5.0)
        self._watch.close()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                sample = next(self._watch)
            except DeadlineExceeded:
                continue
            except (SisockdaqError, StopIteration):
                return
            if sample.gap is None:
                self._arrived.append((sample.t, time.time()))

    def milliseconds(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return, for each frame that was heard of live, the time from its last packet to the event here [ms]."""
        heard = dict(self._arrived)
        if not heard:
            return np.array([])
        name = f"{self._receiver}::assembly_time"
        taken = self._client.get(name, start=min(heard))[name]
        spans = zip(taken.t.tolist(), taken.values.tolist(), strict=True)
        return np.array([1e3 * (heard[t] - t - span) for t, span in spans if t in heard])


def carry_out(trial: Trial, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Take one acquisition and judge it; `say` gets what is being done, in a few words each."""
    from sisockdaq.client import Client

    name = time.strftime("check_%Y%m%d_%H%M%S")
    receiver = udp_receiver(trial.site)
    with Client(trial.site.site, control=True) as client:
        say("waiting until all parts are attached")
        run = start_when_attached(client, trial, name, plan.frames)
        say(f"{name}: {plan.frames} frames")
        with Arrivals(client, receiver) as arrivals:
            command, *arguments = plan.arguments()
            trial.send(command, *arguments, timeout=plan.deadline)
            _wait_for_end(run, say)
        say("asking the archive")
        ledger = run.ledger
        archived = _archived(client, name, ledger.reported("frames_written"))
        latency = arrivals.milliseconds()
        result = {
            "acquisition": name,
            **_counts(ledger),
            "frames_archived": int(archived.get("frames", 0)),
            "file": run.status()["master"],
            "frames_per_second": _rate(client, receiver, run),
            "latency_ms_p50": _percentile(latency, 50),
            "latency_ms_p99": _percentile(latency, 99),
            "ledger": ledger.summary(),
        }
        if plan.replay is not None:
            result |= _images(client, receiver, name, result["frames_archived"])
    return Outcome(result, _judge(result, ledger, plan.frames))


def start_when_attached(client: Client, trial: Trial, name: str, frames: int | None) -> Run:
    """Start an acquisition as soon as writer and integrators are attached to their sources.

    Raises
    ------
    DeadlineExceeded, AcquisitionRefused
        What is missing.
    """
    writer = trial.node("file_writer")
    deadline = time.monotonic() + ATTACH_DEADLINE
    wanted = {writer, *trial.site.result_sources()}
    while True:
        try:
            attached = _attached(client, udp_receiver(trial.site))
            sources = set(client.call_control(writer, "status").get("sources", ()))
            if attached >= wanted and sources >= set(trial.site.result_sources()):
                return client.acquire(name, frames, writer=writer, wait=False)
            reason = f"{_listing(attached)} of {_listing(wanted)} take images; {writer} has {_listing(sources)}"
        except AcquisitionRefused:
            raise
        except SisockdaqError as error:
            reason = error.message
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"not attached after {ATTACH_DEADLINE:.0f} s: {reason}")
        time.sleep(_POLL)


def _listing(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _attached(client: Client, receiver: str) -> set[str]:
    """Return the names of the consumers that are attached to the receiver's ring."""
    consumers = client.call_control(receiver, "status")["ring"]["consumers"]
    return {str(name) for name in consumers}


def _wait_for_end(run: Run, say: Callable[[str], None]) -> None:
    """Wait for the acquisition's end; what does not end by itself after its last packet is stopped."""
    try:
        run.wait(FLIGHT_DEADLINE, progress=False)
    except DeadlineExceeded as error:
        say(f"stopping: {error.message}")
        run.stop()


def _counts(ledger: Ledger) -> dict[str, Any]:
    return {
        "packets_expected": ledger.packets_expected,
        "packets_received": ledger.packets_received,
        "packets_lost": ledger.packets_lost,
        "frames_expected": ledger.frames_expected,
        "frames_complete": ledger.frames_complete,
        "frames_partial": ledger.frames_partial,
        "frames_dropped": ledger.dropped,
        "frames_integrated": ledger.reported("frames_integrated"),
        "frames_written": ledger.reported("frames_written"),
    }


def _archived(client: Client, name: str, frames: int) -> dict[str, Any]:
    """Return the archive's entry of the acquisition, once it has all frames or the deadline is over."""
    deadline = time.monotonic() + ARCHIVE_DEADLINE
    found: dict[str, Any] = {}
    while True:
        for entry in client.acquisitions():
            if entry.get("acquisition") == name:
                found = entry
        if int(found.get("frames", 0)) >= frames or time.monotonic() > deadline:
            return found
        time.sleep(_POLL)


def _rate(client: Client, receiver: str, run: Run) -> float:
    """Return frames a second from the frames' own times; 0 for a single frame."""
    name = f"{receiver}::frame_number"
    times = client.get(name, start=float(run.status().get("started") or 1.0))[name].t
    return float((len(times) - 1) / (times[-1] - times[0])) if len(times) > 1 else 0.0


def _percentile(values: np.ndarray[Any, np.dtype[np.float64]], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if len(values) else None


def _images(client: Client, receiver: str, name: str, frames: int) -> dict[str, Any]:
    """Return sum, maximum and hash of every image as the archive gives it back; of a single one at top level too."""
    images = []
    for index in range(frames):
        image = client.image(f"{receiver}::image", name, index)
        pixels = np.ascontiguousarray(image.values)
        images.append(
            {
                "frame_number": image.number,
                "image_sum": int(pixels.sum(dtype=np.uint64)),
                "image_max": int(pixels.max()),
                "image_sha256": hashlib.sha256(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()).hexdigest(),
            }
        )
    return {"images": images} | (images[0] if len(images) == 1 else {})


def _judge(result: dict[str, Any], ledger: Ledger, frames: int) -> list[str]:
    problems = ledger.balance()
    for key in ("frames_expected", "frames_integrated", "frames_written", "frames_archived"):
        if result[key] != frames:
            problems.append(f"{frames} frames were sent, but {key} is {result[key]}")
    return problems

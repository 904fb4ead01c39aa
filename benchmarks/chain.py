"""Highest rate without loss of the whole chain: simulator → receiver → integrator + writer, 1 Mpix uint16.

All on this machine, as processes of the demo site. A rate counts when an acquisition at it lost no packet and dropped
no frame, and every frame was integrated and written. The rate is what the frames' own times say, not what the simulator
was asked for. It is compared with the bar of 250 frames/s, and with the sum of its parts: the CPU time that sending,
receiving, integrating and packing one frame take by themselves, spread over all cores.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._site import demo_site
from sisockdaq.cli._trial import Trial, example_site
from sisockdaq.cli.acceptance import start_when_attached
from sisockdaq.client import Client
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.receiver import Receiver
from sisockdaq.detector.sender import PacketSender
from sisockdaq.detector.simulator import Simulation
from sisockdaq.detector.sockets import open_sockets
from sisockdaq.errors import SisockdaqError
from sisockdaq.frames.bitshuffle import compress_bound, compress_lz4
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.integrate import Integrator
from sisockdaq.site import load_site

BAR = 250.0
SPAN = 3.0
"""Length of a trial [s]."""


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the row of the highest rate."""
    parts = seconds_of_parts()
    limit = (os.cpu_count() or 1) / sum(parts.values())
    with demo_site() as site, Client(site.site.site, control=True) as client:
        best = highest_rate(lambda rate: attempt(client, site, rate, SPAN), limit, rounds=3 if quick else 6)
    listing = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in parts.items())
    return [
        {
            "benchmark": "chain",
            "case": "1 Mpix uint16, highest rate without loss",
            "value": round(best, 1),
            "unit": "frames/s",
            "against": f"a bar of {BAR:g} frames/s; parts: {listing}",
            "ratio": round(best / BAR, 2),
            "floor_share": round(best / limit, 2),
        }
    ]


def highest_rate(attempt: Callable[[float], float | None], limit: float, *, rounds: int) -> float:
    """Search between nothing and `limit` for the highest rate at which `attempt` returns what it reached."""
    best, low, high = 0.0, 0.0, limit
    rate = 0.6 * limit
    for _ in range(rounds):
        reached = attempt(rate)
        if reached is None:
            high = rate
        else:
            best = max(best, reached)
            low = rate
        rate = (low + high) / 2
    return best


def attempt(client: Client, site: Trial, rate: float, span: float) -> float | None:
    """Take one acquisition; return its rate, or None when anything was lost."""
    frames = int(rate * span)
    acquisition = start_when_attached(client, site, f"chain_{time.time_ns()}", frames)
    try:
        site.send("simulate", "--frames", str(frames), "--rate", f"{rate:.1f}", timeout=60 + 5 * span)
        acquisition.wait(15, progress=False)
    except SisockdaqError:
        acquisition.stop()
    ledger = acquisition.ledger
    done = {ledger.frames_complete, ledger.reported("frames_integrated"), ledger.reported("frames_written")}
    if done != {frames} or ledger.balance():
        return None
    name = f"{site.site.image_sources()[0]}::frame_number"
    times = client.get(name, start=float(acquisition.status()["started"]))[name].t
    return float((len(times) - 1) / (times[-1] - times[0]))


def seconds_of_parts() -> dict[str, float]:
    """Return the CPU time of one frame in each part alone, median of several [s]."""
    site = load_site(example_site("demo"))
    assert site.detector is not None
    simulation = Simulation(site.detector)
    image = simulation.image(0)
    geometry = site.resolve_input(str(site.detector.geometry))
    integrator = Integrator(geometry, shape=site.detector.shape, error_model="poisson", maximum=True)
    payload = np.zeros(compress_bound(image.shape, image.dtype), np.uint8)
    return {
        "send and receive": send_and_receive(site.detector, simulation),
        "integrate": median_cpu(lambda: integrator.integrate(image)),
        "pack": median_cpu(lambda: compress_lz4(image, payload)),
    }


def median_cpu(work: Callable[[], Any], rounds: int = 30) -> float:
    """Return the median CPU time of a piece of work in this thread [s]."""
    work()
    taken = []
    for _ in range(rounds):
        begin = time.thread_time()
        work()
        taken.append(time.thread_time() - begin)
    return float(np.median(taken))


def send_and_receive(options: DetectorOptions, simulation: Simulation, frames: int = 40) -> float:
    """Return the CPU time of sending and receiving one frame, in this process [s]."""
    ring: Any = _Ring(options)
    sockets = open_sockets([("127.0.0.1", 0)] * options.streams, 32 * 2**20)
    targets = [one.getsockname() for one in sockets]
    receiver = Receiver(options, sockets, ring)
    receiver.start()
    try:
        begin = time.process_time()
        with PacketSender(targets, options.datagram_bytes) as sender:
            for number in range(frames):
                sender.send_frame(simulation.packets(number))
                ring.wait(number + 1)
        return (time.process_time() - begin) / frames
    finally:
        receiver.stop()


class _Ring:
    """A ring without consumers that tells how many frames came."""

    def __init__(self, options: DetectorOptions, slots: int = 8) -> None:
        self.pixels = np.zeros((slots, *options.shape), options.dtype)
        self.packet_masks = np.zeros((slots, -(-options.packets_per_frame // 8)), np.uint8)
        self._free = list(range(slots))
        self._published = 0
        self._changed = threading.Condition()

    def wait(self, frames: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._published >= frames, 5.0):
                raise RuntimeError(f"only {self._published} of {frames} frames came")

    def acquire(self) -> int | None:
        return self._free.pop() if self._free else None

    def publish(self, slot: int, header: FrameHeader) -> None:
        self._free.append(slot)
        with self._changed:
            self._published += 1
            self._changed.notify_all()

    def discard(self, slot: int) -> None:
        self._free.append(slot)

    def on_request(self, handler: Any) -> None:
        """Nobody asks."""


if __name__ == "__main__":
    for row in run():
        print(row)

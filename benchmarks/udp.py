"""CPU time a packet: our receiver against `recv_into` and a copy in Python, and against a bare loop that discards.

The detector is the demonstration's: JUNGFRAU, 1 Mpix, two modules on a port each. Packets of 8240 bytes wait in the
sockets' buffers before the clock starts, so that only receiving is measured: CPU time of the receiving thread,
publishing of frames included. The rival does the least that makes a receiver: it checks size, version and packet
number, copies the pixels to their place and counts a frame's packets; it knows how many packets wait where, and has no
sums, no packet masks and nothing against duplicates. The floor is `recvmmsg` into one small buffer. Once with packets
sent one by one, once in trains (UDP_SEGMENT), which our receiver takes whole.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from sisockdaq.detector._libc import recvmmsg
from sisockdaq.detector.description import HEADER_BYTES, DetectorOptions
from sisockdaq.detector.receiver import Receiver
from sisockdaq.detector.sender import PacketSender
from sisockdaq.detector.simulator import Simulation
from sisockdaq.detector.sockets import granted_buffer, open_sockets
from sisockdaq.frames.messages import FrameHeader

_BUFFER = 64 * 2**20
_FRAMES = 12
"""Frames that wait in the buffers: 1536 packets, 12.7 MB a socket, well below what one may hold."""

_MODULES = 2


class _Slots:
    """A ring without consumers."""

    def __init__(self, options: DetectorOptions, count: int) -> None:
        self.pixels = np.zeros((count, *options.shape), options.dtype)
        self.packet_masks = np.zeros((count, -(-options.packets_per_frame // 8)), np.uint8)
        self.done = threading.Event()
        self.published = 0
        self.free = list(range(count))

    def acquire(self) -> int | None:
        return self.free.pop() if self.free else None

    def publish(self, slot: int, header: FrameHeader) -> None:
        self.free.append(slot)
        self.published += header.complete
        if self.published == _FRAMES:
            self.done.set()

    def discard(self, slot: int) -> None:
        self.free.append(slot)

    def on_request(self, handler: Any) -> None:
        pass


def _ours(options: DetectorOptions, sockets: list[socket.socket], send: Callable[[], None]) -> float:
    ring: Any = _Slots(options, 8)
    receiver = Receiver(options, sockets, ring)
    send()
    receiver.start()
    if not ring.done.wait(20):
        raise RuntimeError(f"only {ring.published} of {_FRAMES} frames came; is the receive buffer too small?")
    seconds = time.clock_gettime(time.pthread_getcpuclockid(receiver._thread.ident or 0))
    receiver.stop()
    return seconds


def _python(options: DetectorOptions, sockets: list[socket.socket], send: Callable[[], None]) -> float:
    pixels = np.ones((8, len(sockets), options.packets_per_stream, options.payload_bytes), np.uint8)
    buffer: Any = np.zeros(options.datagram_bytes, np.uint8)
    view, payload = memoryview(buffer.data), buffer[HEADER_BYTES:]
    expected, packets, whole = options.datagram_bytes, options.packets_per_stream, options.packets_per_frame
    unpack = struct.Struct("<QII31xB").unpack_from
    received = [0] * _FRAMES
    send()
    complete = 0
    begin = time.thread_time()
    for _ in range(_FRAMES):
        for stream, one in enumerate(sockets):
            for _ in range(packets):
                size = one.recv_into(view)
                frame, _, packet, version = unpack(buffer)
                if size != expected or version != 2 or packet >= packets:
                    continue
                pixels[frame % 8, stream, packet] = payload
                received[frame] += 1
                if received[frame] == whole:
                    complete += 1
    seconds = time.thread_time() - begin
    if complete != _FRAMES:
        raise RuntimeError(f"only {complete} of {_FRAMES} frames are complete")
    return seconds


@njit(nogil=True, cache=True)
def _discard(descriptor: int, messages: int, left: int) -> int:
    while left > 0:
        got = recvmmsg(descriptor, messages, 32, 0x40, 0)
        if got <= 0:
            return left
        left -= got
    return 0


def _floor(options: DetectorOptions, sockets: list[socket.socket], send: Callable[[], None]) -> float:
    buffer = np.zeros(options.datagram_bytes, np.uint8)
    part = np.array([buffer.ctypes.data, len(buffer)], np.int64)
    messages = np.zeros((32, 8), np.int64)
    messages[:, 2], messages[:, 3] = part.ctypes.data, 1
    _discard(sockets[0].fileno(), messages.ctypes.data, 0)
    send()
    begin = time.thread_time()
    left = [_discard(one.fileno(), messages.ctypes.data, _FRAMES * options.packets_per_stream) for one in sockets]
    seconds = time.thread_time() - begin
    if any(left):
        raise RuntimeError("packets were lost before they were read")
    return seconds


def _once(measure: Callable[..., float], options: DetectorOptions, simulation: Simulation, trains: bool) -> float:
    """Return seconds a packet."""
    sockets = open_sockets([("127.0.0.1", 0)] * options.streams, _BUFFER)
    granted = min(map(granted_buffer, sockets))
    if granted < 20 * 2**20:
        raise RuntimeError(f"a receive buffer of 20 MiB is needed, {granted} bytes were granted")
    with contextlib.ExitStack() as stack:
        for one in sockets:
            stack.enter_context(one)
        targets = [one.getsockname() for one in sockets]
        sender = stack.enter_context(PacketSender(targets, options.datagram_bytes))

        def send() -> None:
            for number in range(_FRAMES):
                streams = simulation.packets(number)
                if trains:
                    sender.send_frame(streams)
                else:
                    for stream, packets in enumerate(streams):
                        for packet in packets:
                            sender.send_one(stream, packet)

        return measure(options, sockets, send) / (_FRAMES * options.packets_per_frame)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows; ``value`` in µs of CPU time a packet."""
    options = DetectorOptions.checked(model="jungfrau", modules=_MODULES)
    simulation = Simulation(options)
    rows = []
    for trains in (False, True):
        rounds: dict[Callable[..., float], list[float]] = {_ours: [], _python: [], _floor: []}
        for _ in range(3 if quick else 15):
            for measure, seconds in rounds.items():
                seconds.append(_once(measure, options, simulation, trains))
        ours, python, floor = (1e6 * statistics.median(seconds) for seconds in rounds.values())
        rows.append(
            {
                "benchmark": "udp",
                "case": "8240-byte packets, " + ("in trains" if trains else "one by one"),
                "value": round(ours, 3),
                "unit": "µs a packet",
                "against": f"recv_into and copy in Python, {python:.2f} µs; floor recvmmsg, {floor:.2f} µs",
                "ratio": round(python / ours, 2),
                "floor_share": round(min(1.0, floor / ours), 2),
            }
        )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)

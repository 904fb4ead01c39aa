"""The stream writer: a Stream V2 series in over ZeroMQ, files out, against the least that anybody could do.

A process of its own sends frames of 1 Mpix of uint16 over TCP on this machine; its messages are made beforehand, as
the detector's processors are not the writer's. Ours runs in a process that is set up as ``jfjoch_writer`` sets up its
own (`keep_freed_memory`), the rivals in another that is left as it is. Packed frames (bslz4 payloads, stored as they
came) are written to two places: to the disk, and then time runs until all is on it (``fdatasync`` in all cases); and
to a file system in memory, where nobody waits for anything but the processor. The rivals:

- ``PULL loop``: takes the same payloads off the same stream and hands them to ``os.write``: what is possible with this
  transport.
- ``plain write()``: ``os.write`` alone of the same bytes, no stream at all. In memory this is one copy, where each
  stream has three (out of the sender, into the receiver, into the file) on the same processors: a row of its own says
  how much of it the PULL loop reaches.
- ``h5py filter``: for raw frames, which ours packs: a PULL loop with cbor2 and h5py's bitshuffle filter, as one writes
  it first. In memory.

Rows named CPU compare seconds of CPU of the process for each frame, all threads, kernel included: what other work on
the machine changes least.

Time runs from the order to send to the closed files. All take turns; the medians of the ratios of each turn count.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import zmq

from sisockdaq.frames.bitshuffle import compress_lz4
from sisockdaq.frames.stream2 import EncodedArray, encode_image
from sisockdaq.jungfraujoch import StreamWriter, WriterOptions
from sisockdaq.jungfraujoch.in_place import read_message
from sisockdaq.jungfraujoch.memory import keep_freed_memory

SHAPE = (1024, 1024)
KINDS = 8
"""Different frames, sent in turn."""

Row = dict[str, Any]

Send = Callable[[str, str, int], None]


def frames() -> list[npt.NDArray[Any]]:
    """Return frames as they come from the detector: a pedestal of its own for each pixel, noise, photons."""
    pedestal = np.random.default_rng(0).normal(3000, 100, SHAPE)
    made = []
    for seed in range(KINDS):
        generator = np.random.default_rng(seed)
        frame = pedestal + generator.normal(0, 10, SHAPE) + 40 * generator.poisson(0.5, SHAPE)
        made.append(frame.round().astype("<u2"))
    return made


# The sender's process.


def messages(packed: bool) -> list[tuple[bytearray, int]]:
    """Return an image message of each kind, and where its number stands."""
    made = []
    mark = 0x01020304
    for pixels in frames():
        data: Any = pixels
        if packed:
            data = EncodedArray(SHAPE, np.dtype("<u2"), "bslz4", bytes(compress_lz4(pixels)))
        message = bytearray(encode_image(1, "bench", mark, {"default": data}, {}, compression="none"))
        made.append((message, message.index(struct.pack(">I", mark))))
    return made


def send_forever() -> None:
    """Bind, say where, and send a series for each line of the input: ``packed|raw PREFIX COUNT``."""
    templates = {"packed": messages(True), "raw": messages(False)}
    ready: dict[str, list[bytes]] = {"packed": [], "raw": []}
    socket = zmq.Context().socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 100)
    print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    for line in sys.stdin:
        kind, prefix, count = line.split()
        for number in range(len(ready[kind]), int(count)):
            template, at = templates[kind][number % KINDS]
            struct.pack_into(">I", template, at, number)
            ready[kind].append(bytes(template))
        if prefix == "-":
            print("ready", flush=True)
            continue
        head = {"type": "start", "series_id": 1, "series_unique_id": "bench", "file_prefix": prefix}
        head |= {"number_of_images": int(count), "image_size_x": SHAPE[1], "image_size_y": SHAPE[0]}
        socket.send(cbor2.dumps(head))
        for message in ready[kind][: int(count)]:
            socket.send(message, copy=False)
        socket.send(cbor2.dumps({"type": "end", "series_id": 1, "series_unique_id": "bench"}))


@contextlib.contextmanager
def sending(packed: int, raw: int) -> Iterator[tuple[str, Send]]:
    """Run the sender and let it make so many messages; give its address and what makes it send."""
    command = [sys.executable, "-c", "from benchmarks.writer import send_forever; send_forever()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = f"tcp://127.0.0.1:{int(process.stdout.readline())}"
        orders = process.stdin
        for kind, count in (("packed", packed), ("raw", raw)):
            print(kind, "-", count, file=orders)
            process.stdout.readline()
        try:
            yield address, lambda kind, prefix, count: print(kind, prefix, count, file=orders)
        finally:
            orders.close()
            process.terminate()


# Ours, and the rivals. Each is connected before the sender is told to send, and returns the time it took [s].


def ours(folder: Path, address: str, send: Send, kind: str, count: int) -> float:
    """Write a series with the stream writer."""
    changed = threading.Event()
    options = WriterOptions(folder, [address], threads=os.cpu_count() or 1)
    writer = StreamWriter(options, on_status=lambda _: changed.set()).start()
    try:
        while not writer.status()["connected"]:
            time.sleep(0.01)
        begin = time.perf_counter()
        send(kind, "run", count)
        while not (status := writer.status())["ended"]:
            changed.wait(1.0)
            changed.clear()
        took = time.perf_counter() - begin
    finally:
        writer.close()
    if status["images"]["written"] != count:
        raise RuntimeError(f"{status['images']['written']} of {count} images: {status['message']}")
    return took


def pulling(address: str) -> Iterator[Any]:
    """Yield each message of one series."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, 100)
        socket.connect(address)
        yield None  # connected soon; the sender waits for it
        while True:
            message = socket.recv(copy=False).buffer
            if len(message) < 1000 and cbor2.loads(bytes(message))["type"] == "end":
                return
            yield message


def loop(folder: Path, address: str, send: Send, kind: str, count: int) -> float:
    """Write the payloads of a series one after another."""
    stream = pulling(address)
    next(stream)
    begin = time.perf_counter()
    send(kind, "run", count)
    fd = os.open(folder / "plain.bin", os.O_WRONLY | os.O_CREAT)
    for message in stream:
        if len(message) > 1000:
            os.write(fd, read_message(message).data["default"].payload)  # type: ignore[union-attr]
    os.close(fd)
    return time.perf_counter() - begin


def alone(folder: Path, payloads: list[bytes], count: int) -> float:
    """Write the payloads without any stream."""
    begin = time.perf_counter()
    fd = os.open(folder / "plain.bin", os.O_WRONLY | os.O_CREAT)
    for number in range(count):
        os.write(fd, payloads[number % len(payloads)])
    os.close(fd)
    return time.perf_counter() - begin


def filtered(folder: Path, address: str, send: Send, kind: str, count: int) -> float:
    """Write a series as one writes it first: cbor2, numpy, h5py."""
    stream = pulling(address)
    next(stream)
    begin = time.perf_counter()
    send(kind, "run", count)
    with h5py.File(folder / "simple.h5", "w") as file:
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        data = file.create_dataset("data", (count, *SHAPE), "<u2", chunks=(1, *SHAPE), **filters)
        for message in stream:
            body = cbor2.loads(message)
            if body["type"] == "image":
                (size, typed) = body["data"]["default"].value
                data[body["image_id"]] = np.frombuffer(typed.value, "<u2").reshape(size)
    return time.perf_counter() - begin


# The processes of ours and of the rivals.


def work(who: str, address: str) -> None:
    """Do what each line of the input asks for: ``FUNCTION KIND COUNT SYNC FOLDER``; tell wall and CPU time [s].

    When the stream is to be sent, a line says what.
    """
    if who == "ours" and not keep_freed_memory():
        raise RuntimeError("this C library has no mallopt")
    functions = {"ours": ours, "loop": loop, "filter": filtered}
    payloads = [bytes(compress_lz4(frame)) for frame in frames()]

    def send(*words: object) -> None:
        print("send", *words, flush=True)

    for line in sys.stdin:
        name, kind, count, sync, folder = line.rstrip("\n").split(maxsplit=4)
        begin = time.process_time()
        if name == "alone":
            wall = alone(Path(folder), payloads, int(count))
        else:
            wall = functions[name](Path(folder), address, send, kind, int(count))
        wall += _sync(Path(folder)) if sync == "sync" else 0.0
        print("took", wall, time.process_time() - begin, flush=True)


class _Time(NamedTuple):
    wall: float
    cpu: float


Order = Callable[[str, str, int, "_Place"], _Time]
"""Function, kind, count, place → times [s]."""


class _Place(NamedTuple):
    """Where files are written, and whether that lasts until they are there."""

    folder: Path
    sync: bool


@contextlib.contextmanager
def working(who: str, address: str, send: Send) -> Iterator[Order]:
    """Run such a process; give what makes it do one thing."""
    words = f"from benchmarks.writer import work; work({who!r}, {address!r})"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen([sys.executable, "-c", words], **pipes) as process:
        orders, answers = process.stdin, process.stdout
        assert orders is not None
        assert answers is not None

        def order(name: str, kind: str, count: int, place: _Place) -> _Time:
            print(name, kind, count, "sync" if place.sync else "-", place.folder, file=orders)
            while (answer := answers.readline().split()) and answer[0] == "send":
                send(answer[1], answer[2], int(answer[3]))
            if not answer:
                raise RuntimeError(f"{name} has ended without a result")
            return _Time(float(answer[1]), float(answer[2]))

        try:
            yield order
        finally:
            orders.close()
            process.terminate()


def run(quick: bool = False) -> list[Row]:
    """Return the rows of the table."""
    count, rounds = (100, 3) if quick else (300, 5)
    half = count // 2
    size = statistics.mean(len(compress_lz4(frame)) for frame in frames())
    packed = f"packed, 1 Mpix u2, {size / 1e3:.0f} kB"
    unpacked = f"raw, 1 Mpix u2, {SHAPE[0] * SHAPE[1] * 2 / 1e3:.0f} kB"
    with (
        tempfile.TemporaryDirectory() as on_disk,
        tempfile.TemporaryDirectory(dir=_memory(1.5 * count * size)) as in_memory,
        sending(count, half) as (address, send),
        working("ours", address, send) as mine,
        working("rivals", address, send) as rivals,
    ):
        memory = _Place(Path(in_memory), sync=False)
        disk = _turns(mine, rivals, rounds, ("loop", "alone"), "packed", count, _Place(Path(on_disk), sync=True))
        there = _turns(mine, rivals, rounds, ("loop", "alone"), "packed", count, memory)
        raw = _turns(mine, rivals, rounds, ("filter",), "raw", half, memory)
    rows = []
    for times, where in ((disk, "disk"), (there, "memory")):
        against = {name: _ratio(times, "ours", name, "wall") for name in ("loop", "alone")}
        rate, bytes_rate = count / times.wall("ours"), count * size / 1e6 / times.wall("ours")
        rows += [
            _row(f"{packed}, {where}", rate, "frames/s", _LOOP, against["loop"], against["loop"]),
            _row(f"{packed}, {where}", rate, "frames/s", _ALONE, against["alone"], None),
            _row(f"{packed}, {where}", bytes_rate, "MB/s", _ALONE, against["alone"], None),
            _row(f"{_LOOP} itself, {where}", count / times.wall("loop"), "frames/s", _ALONE,
                 _ratio(times, "loop", "alone", "wall"), None),
        ]  # fmt: skip
    return [
        *rows,
        _row(f"{packed}, CPU", 1e3 * there.cpu("ours") / count, "ms/frame", _LOOP,
             _ratio(there, "ours", "loop", "cpu"), None),
        _row(unpacked, half / raw.wall("ours"), "frames/s", _FILTER, _ratio(raw, "ours", "filter", "wall"), None),
        _row(f"{unpacked}, CPU", 1e3 * raw.cpu("ours") / half, "ms/frame", _FILTER,
             _ratio(raw, "ours", "filter", "cpu"), None),
    ]  # fmt: skip


_LOOP, _ALONE, _FILTER = "PULL loop, write()", "plain write()", "PULL loop, h5py filter"


def _memory(need: float) -> str | None:
    """Return a folder in memory with that room [bytes], or None where there is none."""
    folder = "/dev/shm"
    if not os.path.ismount(folder):
        return None
    room = os.statvfs(folder)
    return folder if room.f_bavail * room.f_frsize > need else None


class _Times:
    """Times of each function, turn by turn."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.taken: dict[str, list[_Time]] = {name: [] for name in names}

    def wall(self, name: str) -> float:
        return statistics.median(each.wall for each in self.taken[name])

    def cpu(self, name: str) -> float:
        return statistics.median(each.cpu for each in self.taken[name])


def _ratio(times: _Times, one: str, other: str, of: str) -> float:
    """Return the median of the ratios `other` ÷ `one` of all turns."""
    pairs = zip(times.taken[one], times.taken[other], strict=True)
    return statistics.median(getattr(b, of) / getattr(a, of) for a, b in pairs)


def _turns(
    mine: Order, rivals: Order, rounds: int, others: tuple[str, ...], kind: str, count: int, place: _Place
) -> _Times:
    """Let ours and rivals take turns, each time in another order; the first turn is not counted."""
    names = ("ours", *others)
    times = _Times(names)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            if place.sync:
                os.sync()  # what was written before is not paid for here
            took = (mine if name == "ours" else rivals)(name, kind, count, place)
            if number:
                times.taken[name].append(took)
            for path in place.folder.iterdir():
                path.unlink()
    return times


def _sync(folder: Path) -> float:
    """Wait until all files are on the disk; return how long that took [s]."""
    begin = time.perf_counter()
    for path in folder.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.fdatasync(fd)
        os.close(fd)
    return time.perf_counter() - begin


def _row(case: str, value: float, unit: str, against: str, ratio: float, floor_share: float | None) -> Row:
    share = None if floor_share is None else min(floor_share, 1.0)
    return {"benchmark": "writer", "case": case, "value": value, "unit": unit, "against": against, "ratio": ratio,
            "floor_share": share}  # fmt: skip


if __name__ == "__main__":
    for row in run(quick="--quick" in sys.argv):
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})

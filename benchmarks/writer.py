"""The stream writer: a Stream V2 series in over ZeroMQ, files out, against the least that anybody could do.

A process of its own sends frames of 1 Mpix of uint16 over TCP on this machine; its messages are made beforehand, as
the detector's processors are not the writer's. Rows:

- ``packed, disk``: bslz4 payloads through `StreamWriter`, against ``os.write`` alone of the same bytes to a plain file,
  no stream at all. Wall time until all is on the disk (``fdatasync`` in both): what a writer is for.
- ``packed, memory``: the same without waiting for the disk: the rival is nothing but a copy into the page cache.
- ``packed, PULL loop``: against a loop that takes the same payloads off the stream and hands them to ``os.write``, not
  waiting for the disk. What is possible here is that loop.
- ``packed, CPU``: of the same, seconds of CPU of this process for each frame, all threads, kernel included: what other
  work on the machine does not change.
- ``raw``: pixels that come without packing, packed and written, against a PULL loop with cbor2 and h5py's bitshuffle
  filter, as one writes it first. Wall time, not waiting for the disk; and CPU.

Time runs from the order to send to the closed files. Ours and the rivals take turns; the median of the ratios counts.
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


def plain(folder: Path, address: str, send: Send, kind: str, count: int) -> float:
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


def bare(folder: Path, payloads: list[bytes], count: int) -> float:
    """Write the payloads without any stream."""
    begin = time.perf_counter()
    fd = os.open(folder / "plain.bin", os.O_WRONLY | os.O_CREAT)
    for number in range(count):
        os.write(fd, payloads[number % len(payloads)])
    os.close(fd)
    return time.perf_counter() - begin


def simple(folder: Path, address: str, send: Send, kind: str, count: int) -> float:
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


def run(quick: bool = False) -> list[Row]:
    """Return the rows of the table."""
    count, rounds = (100, 3) if quick else (500, 7)
    payloads = [bytes(compress_lz4(frame)) for frame in frames()]
    size = sum(map(len, payloads)) / len(payloads)
    with tempfile.TemporaryDirectory() as name, sending(count, count // 2) as (address, send):
        folder = Path(name)

        def mine() -> float:
            return ours(folder, address, send, "packed", count)

        disk = _turns(folder, rounds, mine, lambda: bare(folder, payloads, count), to_disk=True)
        memory = _turns(folder, rounds, mine, lambda: bare(folder, payloads, count))
        loop = _turns(folder, rounds, mine, lambda: plain(folder, address, send, "packed", count))
        raw = _turns(folder, rounds, lambda: ours(folder, address, send, "raw", count // 2),
                     lambda: simple(folder, address, send, "raw", count // 2))  # fmt: skip
    packed = f"packed, 1 Mpix u2, {size / 1e3:.0f} kB"
    unpacked = f"raw, 1 Mpix u2, {SHAPE[0] * SHAPE[1] * 2 / 1e3:.0f} kB"
    alone, looped, filtered = "plain write()", "PULL loop, write()", "PULL loop, h5py filter"
    return [
        _row(f"{packed}, disk", count / disk.wall, "frames/s", alone, disk.ratio, disk.ratio),
        _row(f"{packed}, disk", count * size / 1e6 / disk.wall, "MB/s", alone, disk.ratio, None),
        _row(f"{packed}, memory", count / memory.wall, "frames/s", alone, memory.ratio, None),
        _row(f"{packed}, PULL loop", count / loop.wall, "frames/s", looped, loop.ratio, loop.ratio),
        _row(f"{packed}, PULL loop, CPU", 1e3 * loop.cpu / count, "ms/frame", looped, loop.cpu_ratio, None),
        _row(unpacked, count // 2 / raw.wall, "frames/s", filtered, raw.ratio, None),
        _row(f"{unpacked}, CPU", 1e3 * raw.cpu / (count // 2), "ms/frame", filtered, raw.cpu_ratio, None),
    ]


class _Taken(NamedTuple):
    """Medians: of our wall time and CPU [s], and of rival ÷ ours of both."""

    wall: float
    cpu: float
    ratio: float
    cpu_ratio: float


def _turns(
    folder: Path, rounds: int, mine: Callable[[], float], rival: Callable[[], float], *, to_disk: bool = False
) -> _Taken:
    """Let both take turns; files are removed between, untimed."""
    taken: dict[Callable[[], float], list[tuple[float, float]]] = {mine: [], rival: []}
    for number in range(rounds + 1):
        for function in (mine, rival) if number % 2 == 0 else (rival, mine):
            os.sync()  # what was written before is not paid for here
            begin = time.process_time()
            wall = function() + (_sync(folder) if to_disk else 0.0)
            taken[function].append((wall, time.process_time() - begin))
            for path in folder.iterdir():
                path.unlink()
    own, other = taken[mine][1:], taken[rival][1:]
    ratios = [[b[i] / a[i] for a, b in zip(own, other, strict=True)] for i in (0, 1)]
    middle = [statistics.median(each[i] for each in own) for i in (0, 1)]
    return _Taken(*middle, *map(statistics.median, ratios))


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

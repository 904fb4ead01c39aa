"""A server for tests: a literal client written from the contract, masks and pictures, and a queue without processes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fabio.tifimage
import numpy as np
import numpy.typing as npt
import zmq
from sisockdaq.gateways.saxsdog.server import Server
from sisockdaq.gateways.saxsdog.service import Service

from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.listing import Allowed
from sisockdaq.saxsdog.wire import Guard
from tests.saxsdog import literal

SECRET = "a large random string"
SHAPE = (40, 31)
DEADLINE = 20.0


class LiteralClient:
    """Asks as the contract says, without any code of the library."""

    def __init__(self, url: str, secret: str = SECRET) -> None:
        self.url = url
        self.secret = secret

    def request(self, command: str, argument: Any = None, *attached: dict[str, str], late: float = 0.0) -> list[bytes]:
        request = {"command": command, "argument": argument or {}, "time": time.time() - late, "sign": ""}
        text = json.dumps(request, sort_keys=True).encode() + self.secret.encode()
        request["sign"] = hashlib.sha512(text).hexdigest()
        return [json.dumps(request).encode(), *(json.dumps(one).encode() for one in attached)]

    def send(self, frames: list[bytes]) -> dict[str, Any]:
        socket: Any = zmq.Context.instance().socket(zmq.REQ)
        socket.set(zmq.LINGER, 0)
        try:
            socket.connect(self.url)
            socket.send_multipart(frames)
            assert socket.poll(1e3 * DEADLINE), "no reply"
            reply: dict[str, Any] = json.loads(socket.recv())
            return reply
        finally:
            socket.close()

    def __call__(
        self, command: str, argument: Any = None, *attached: dict[str, str], late: float = 0.0
    ) -> dict[str, Any]:
        return self.send(self.request(command, argument, *attached, late=late))


class SimpleQueue:
    """Does what `PictureQueue` promises, at once and in the caller's thread."""

    def __init__(self, reduction: Reduction, directory: Path, **places: Any) -> None:
        self.reduction, self.directory, self.places = reduction, directory, places
        self.started = time.time()
        self.clear()
        self.aborted = False
        self.processed = 0

    def clear(self) -> None:
        self.done: list[float] = []
        self.newest: dict[str, Any] | None = None
        self.lists: dict[str, list[str]] = {}
        self.parameters: dict[str, dict[str, list[Any]]] = {}

    def start(self) -> None:
        pass

    def put(self, path: Path) -> bool:
        if self.aborted or not path.is_relative_to(self.directory) or path.suffix != ".tif":
            return False
        curves = self.reduction.reduce(fabio.open(str(path)).data)
        base = str(path.with_suffix(""))
        self.newest = {"filename": base, "graphs": [curve.to_wire(str(path)) for curve in curves]}
        self.done.append(time.time())
        self.processed += 1
        for curve in curves:
            self.lists.setdefault(curve.file_key, []).append(f"{base}.chi")
            if curve.parameters:
                kept = self.parameters.setdefault(curve.key, {"time": [], "file": []})
                for name, value in {"time": "", "file": base, **curve.parameters}.items():
                    kept.setdefault(name, []).append(value)
        return True

    def readdir(self) -> None:
        self.clear()
        for path in sorted(self.directory.rglob("*.tif")):
            self.put(path)

    def abort(self, timeout: float = 10.0) -> None:
        self.aborted = True

    def state(self) -> dict[str, Any]:
        return {
            "images processed": self.processed,
            "queue length": 0,
            "time": time.time(),
            "start time": self.started,
        }

    def latest(self) -> dict[str, Any] | None:
        return self.newest

    def history(self) -> list[float]:
        return self.done

    def integral_parameters(self) -> dict[str, Any]:
        return self.parameters

    def file_lists(self) -> dict[str, list[str]]:
        return self.lists

    def counts(self) -> SimpleNamespace:
        nothing = dict.fromkeys(("waiting", "in_hand", "retries", "failed", "dropped", "restarts", "rate"), 0)
        return SimpleNamespace(processed=self.processed, problem="", **nothing)

    def failures(self) -> list[Any]:
        return []


def fit2d_mask(valid: npt.NDArray[np.bool_]) -> bytes:
    """Return a Fit2D mask as the contract describes it: rows from the bottom, a bit for each masked pixel."""
    rows, columns = valid.shape
    head = bytearray(1024)
    head[:16] = b"M\0\0\0A\0\0\0S\0\0\0K\0\0\0"
    head[0x10:0x18] = np.array([columns, rows], "<i4").tobytes()
    bits = np.zeros((rows, -(-columns // 32) * 32), np.uint8)
    bits[:, :columns] = ~valid[::-1]
    return bytes(head) + np.packbits(bits, axis=1, bitorder="little").tobytes()


def mask_attachment(valid: npt.NDArray[np.bool_], name: str = "mask.msk") -> dict[str, str]:
    return {"filename": name, "data": fit2d_mask(valid).decode("latin-1")}


def valid_pixels() -> npt.NDArray[np.bool_]:
    return np.random.default_rng(2).random(SHAPE) < 0.9


def write_picture(path: Path, seed: int = 1) -> npt.NDArray[np.int32]:
    pixels = np.random.default_rng(seed).integers(0, 50, SHAPE).astype(np.int32)
    fabio.tifimage.TifImage(data=pixels).write(str(path))
    return pixels


def calibration(directory: str = "run1", **changes: Any) -> dict[str, Any]:
    return literal.calibration(SHAPE, Directory=directory.split("/"), **changes)


@contextmanager
def serving(
    base: Path, *, strict: bool = True, feeder: str | None = None, real: bool = False, **more: Any
) -> Iterator[Service]:
    """Run a server over a folder; with processes where `real`."""
    engine = Server(Allowed(base), **({} if real else {"make_queue": SimpleQueue}), **more)
    service = Service(engine, Guard(SECRET, strict=strict), "tcp://127.0.0.1:*", feeder=feeder)
    service.start()
    try:
        yield service
    finally:
        service.stop()

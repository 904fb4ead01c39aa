"""A Stream V2 sender of the contract's own words: CBOR maps with typed arrays, pushed over ZeroMQ."""

from __future__ import annotations

import datetime
import struct
from types import TracebackType
from typing import Any

import cbor2
import hdf5plugin  # noqa: F401 - its filter is used below
import numpy as np
import zmq

DATE = datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.UTC)
_TAGS = {"uint8": 64, "uint16": 69, "uint32": 70, "int16": 77, "int32": 78, "float32": 85}


def bslz4(array: np.ndarray) -> bytes:
    """The chunk that the HDF5 bitshuffle filter makes of an array."""
    import h5py

    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        made = file.create_dataset("d", array.shape, array.dtype, chunks=array.shape, compression=32008,
                                   compression_opts=(0, 2))  # fmt: skip
        made[...] = array
        return bytes(made.id.read_direct_chunk((0,) * array.ndim)[1])


def typed(array: np.ndarray, compression: str) -> cbor2.CBORTag:
    if compression == "bslz4":
        content: Any = cbor2.CBORTag(56500, ["bslz4", array.dtype.itemsize, bslz4(array)])
    else:
        content = array.tobytes()
    tag = 66 - 1 if array.dtype == np.dtype(">u2") else _TAGS[array.dtype.name]
    return cbor2.CBORTag(40, [list(array.shape), cbor2.CBORTag(tag, content)])


class Sender:
    """PUSH sockets that are bound; start and end go to all of them."""

    def __init__(self, sockets: int = 1) -> None:
        self.context = zmq.Context()
        self.sockets = [self.context.socket(zmq.PUSH) for _ in range(sockets)]
        self.addresses = []
        for one in self.sockets:
            one.setsockopt(zmq.SNDTIMEO, 20_000)
            port = one.bind_to_random_port("tcp://127.0.0.1")
            self.addresses.append(f"tcp://127.0.0.1:{port}")
        self.series = (0, "")

    def send(self, body: dict[str, Any] | bytes, to: int = 0) -> None:
        self.sockets[to].send(body if isinstance(body, bytes) else cbor2.dumps(body))

    def start(self, number: int, shape: tuple[int, int], dtype: str, frames: int, **more: Any) -> None:
        self.series = (number, f"series-{number}")
        body = {
            "type": "start", "series_id": number, "series_unique_id": self.series[1], "arm_date": DATE,
            "number_of_images": frames, "image_size_x": shape[1], "image_size_y": shape[0], "image_dtype": dtype,
            "channels": ["1"], "incident_energy": 12400.0, "pixel_size_x": 75e-6, "pixel_size_y": 75e-6,
            "pixel_mask": {"1": typed(np.zeros(shape, np.uint32), "none")}, **more,
        }  # fmt: skip
        for to in range(len(self.sockets)):
            self.send(body, to)

    def image(self, number: int, pixels: np.ndarray, compression: str = "bslz4", to: int = 0, **more: Any) -> None:
        body = {
            "type": "image", "series_id": self.series[0], "series_unique_id": self.series[1], "image_id": number,
            "series_date": DATE, "start_time": [number, 100], "stop_time": [number + 1, 100], "real_time": [1, 100],
            "data": {"1": typed(pixels, compression)}, **more,
        }  # fmt: skip
        self.send(body, to)

    def end(self) -> None:
        for to in range(len(self.sockets)):
            self.send({"type": "end", "series_id": self.series[0], "series_unique_id": self.series[1]}, to)

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.sockets:
            one.close(linger=0)
        self.context.destroy(linger=0)


def header_of(payload: bytes) -> tuple[int, int]:
    """Raw bytes and bytes of a block, as a bitshuffle chunk begins."""
    return struct.unpack_from(">QI", payload)

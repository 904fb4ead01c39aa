"""A sender as the contract describes it, written with cbor2 alone: nothing of it comes from the code under test."""

from __future__ import annotations

import struct
from typing import Any

import cbor2
import numpy as np
import numpy.typing as npt
import zmq

from sisockdaq.frames.bitshuffle import compress_lz4

SHAPE = (32, 48)

Message = dict[str, Any]

_TAGS = {"|u1": 64, "<u2": 69, "<u4": 70, "|i1": 72, "<i2": 77, "<i4": 78, "<f4": 85, ">u2": 65}


def image(index: int, dtype: str = "<u2", shape: tuple[int, int] = SHAPE) -> npt.NDArray[Any]:
    """Return the pixels of an image; each image differs."""
    return (np.arange(shape[0] * shape[1]).reshape(shape) % 97 + 100 * (index % 100)).astype(dtype)


def payload(pixels: npt.NDArray[Any]) -> bytes:
    """Return the bitshuffle-LZ4 chunk of some pixels."""
    return bytes(compress_lz4(pixels))


def plain_lz4(pixels: npt.NDArray[Any]) -> bytes:
    """Return a chunk of HDF5 filter 32004 with one block that is stored as it is."""
    raw = pixels.tobytes()
    return struct.pack(">QII", len(raw), len(raw), len(raw)) + raw


def tagged(pixels: npt.NDArray[Any], packed: tuple[str, bytes] | None = None, order: int = 40) -> cbor2.CBORTag:
    """Return a typed array; `packed` is the compression and its payload."""
    content: Any = pixels.tobytes(order="F" if order == 1040 else "C")
    if packed is not None:
        name, data = packed
        content = cbor2.CBORTag(56500, [name, 0 if name == "lz4" else pixels.dtype.itemsize, data])
    return cbor2.CBORTag(order, [list(pixels.shape), cbor2.CBORTag(_TAGS[pixels.dtype.str], content)])


def start(prefix: str | None = "run", images: int | None = 10, per_file: int | None = 4, **more: Any) -> Message:
    """Return a start message of the Jungfraujoch dialect."""
    message: Message = {"type": "start", "magic_number": 0x52320000, "series_id": 1, "series_unique_id": "one"}
    given = {"file_prefix": prefix, "number_of_images": images, "images_per_file": per_file}
    message |= {key: value for key, value in given.items() if value is not None}
    message |= {"image_size_y": SHAPE[0], "image_size_x": SHAPE[1], "image_dtype": "uint16"}
    return message | more


def frame(index: int, data: Any = None, **more: Any) -> Message:
    """Return an image message with one channel."""
    if data is None:
        data = tagged(image(index), ("bslz4", payload(image(index))))
    message: Message = {"type": "image", "series_id": 1, "series_unique_id": "one", "image_id": index}
    return message | {"real_time": [1, 1000], **more, "data": {"default": data}}


def end(**more: Any) -> Message:
    """Return an end message."""
    return {"type": "end", "series_id": 1, "series_unique_id": "one", **more}


class Sender:
    """A bound PUSH socket."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.setsockopt(zmq.SNDTIMEO, 20_000)
        self.socket.setsockopt(zmq.SNDHWM, 100_000)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"

    def send(self, *messages: Message | bytes) -> list[bytes]:
        """Send messages; return them as bytes."""
        sent = [item if isinstance(item, bytes) else cbor2.dumps(item) for item in messages]
        for item in sent:
            self.socket.send(item)
        return sent

    def run(self, indices: range | list[int], *, images: int | None = None, **header: Any) -> None:
        """Send a whole series with those images."""
        self.send(start(images=len(indices) if images is None else images, **header))
        self.send(*(frame(index) for index in indices))
        self.send(end())

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()

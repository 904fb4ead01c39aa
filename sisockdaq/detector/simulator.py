"""A simulated detector: JUNGFRAU, EIGER and GigaFRoST packets with images that can be worked out again.

`Simulation.image` gives the very image that frame ``n`` carries, so that a test or a person can compare what came out
at the far end. Packets are built before the first is sent: sending a frame only writes its number and time into the
headers. Disturbances (loss, shuffling, duplicates, broken packets) are drawn from the seed and listed in the result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.detector import gigafrost
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.formats import HEADER, HEADER_BYTES, HEADER_VERSION, pack_pixels
from sisockdaq.detector.layout import pixel_index
from sisockdaq.detector.sender import Pacer, PacketSender

__all__ = ["Disturbance", "Simulated", "Simulation", "send_disturbed", "simulate"]

_PATTERNS = 4
"""Different images that a simulation sends in turn; each takes a frame's memory once more."""

_TICK = 1e-7
"""Unit of the header's timestamp [s]."""


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong on the way.

    Attributes
    ----------
    loss, duplicates, invalid : float
        Share of packets (0 to 1) that is left out, sent twice, or accompanied by a broken packet.
    shuffle : bool
        Send the packets of a frame, all streams together, in random order.
    lost_frames : collection of int
        Frame numbers that are not sent at all.
    """

    loss: float = 0.0
    duplicates: float = 0.0
    invalid: float = 0.0
    shuffle: bool = False
    lost_frames: frozenset[int] = frozenset()

    @property
    def none(self) -> bool:
        """Whether every packet goes out once and in order."""
        return not (self.loss or self.duplicates or self.invalid or self.shuffle)


@dataclass
class Simulated:
    """What a simulation has sent; ``lost`` holds the numbers of the packets left out, by frame number."""

    first_frame: int
    frames: int = 0
    packets: int = 0
    duplicates: int = 0
    invalid: int = 0
    lost: dict[int, list[int]] = field(default_factory=dict)
    seconds: float = 0.0


class Simulation:
    """The images and packets of a simulated detector.

    Parameters
    ----------
    options : DetectorOptions
    seed : int
        Same seed, same images.
    patterns : int
        Different images sent in turn.
    images : sequence of ndarray, optional
        Send these instead; of the detector's shape and dtype.
    """

    def __init__(
        self,
        options: DetectorOptions,
        *,
        seed: int = 0,
        patterns: int = _PATTERNS,
        images: Sequence[npt.NDArray[Any]] | None = None,
    ) -> None:
        self.options = options
        generator = np.random.default_rng(seed)
        self._images = list(images) if images else [_rings(options, generator) for _ in range(patterns)]
        self._index = [pixel_index(options, stream) for stream in range(options.streams)]
        self._packets = [[self._stream(image, s) for s in range(options.streams)] for image in self._images]

    @property
    def patterns(self) -> int:
        """Number of different images, sent in turn."""
        return len(self._images)

    def image(self, number: int) -> npt.NDArray[Any]:
        """Return the image of a frame number, gaps included, as a receiver must show it when nothing is lost."""
        return self._images[number % len(self._images)]

    def packets(self, number: int, timestamp: int = 0) -> list[npt.NDArray[Any]]:
        """Return a frame's packets, one array (packets, datagram bytes) a stream; valid until the next call.

        Where the last packet of a GigaFRoST's stream is shorter, it is an array (packets,) of arrays.
        """
        streams = self._packets[number % len(self._packets)]
        for packets in streams:
            if self.options.model == "gigafrost":
                _number_gigafrost(packets, number, timestamp)
                continue
            headers = _headers(packets)
            headers["frame_number"] = number
            headers["timestamp"] = timestamp
        return streams

    def _stream(self, image: npt.NDArray[Any], stream: int) -> npt.NDArray[Any]:
        options = self.options
        if options.model == "gigafrost":
            return _gigafrost_packets(options, image.reshape(-1)[self._index[stream]], stream)
        packets = np.zeros((options.packets_per_stream, options.datagram_bytes), np.uint8)
        packets[:, HEADER_BYTES:] = pack_pixels(image.reshape(-1)[self._index[stream]], options.bit_depth)
        headers = _headers(packets)
        headers["packet_number"] = options.first_packet(stream) + np.arange(options.packets_per_stream)
        headers["exposure"] = 10_000
        headers["module_id"] = (
            options.module_ids[stream] if options.module_ids else stream // _streams_a_module(options)
        )
        headers["row"], headers["column"] = _row_column(options, stream)
        headers["detector_type"] = options.detector_type
        headers["version"] = HEADER_VERSION
        return packets


def simulate(
    options: DetectorOptions,
    targets: Sequence[tuple[str, int]],
    *,
    frames: int | None,
    rate: float | None = 100.0,
    first_frame: int = 1,
    seed: int = 0,
    spread: float = 0.5,
    disturbance: Disturbance | None = None,
    simulation: Simulation | None = None,
    on_frame: Callable[[Simulated], None] | None = None,
    stop: threading.Event | None = None,
) -> Simulated:
    """Send simulated frames.

    Parameters
    ----------
    options : DetectorOptions
    targets : sequence of (host, port)
        One a stream.
    frames : int or None
        How many; None until `stop` is set.
    rate : float or None
        Frames a second; None for as fast as it goes.
    first_frame : int
        Number of the first frame.
    seed : int
        Of the images and of the disturbances.
    spread : float
        Share of the time between two frames over which a frame's packets are spread; 0 sends them in one burst.
    disturbance : Disturbance, optional
    simulation : Simulation, optional
        Images and packets made before, which takes some time for large detectors.
    on_frame : callable, optional
        Called after each frame with what was sent so far.
    stop : threading.Event, optional
        Ends it between two frames.

    Raises
    ------
    ConnectionFailed
        When a target cannot be reached.
    """
    source = simulation or Simulation(options, seed=seed)
    trouble = disturbance or Disturbance()
    generator = np.random.default_rng([seed, 1])
    sent = Simulated(first_frame)
    pacer = Pacer(rate, stop=stop)
    begin = time.perf_counter()
    with PacketSender(targets, options.datagram_bytes) as sender:
        while (frames is None or sent.frames < frames) and pacer.wait():
            number = first_frame + sent.frames
            streams = source.packets(number, int((time.perf_counter() - begin) / _TICK))
            if number in trouble.lost_frames:
                sent.lost[number] = list(range(options.packets_per_frame))
            elif trouble.none and streams[0].ndim == 2:
                sender.send_frame(streams, spread / rate if rate else 0.0)
            else:
                send_disturbed(sender, streams, trouble, generator, sent, number, model=options.model)
            sent.frames += 1
            sent.packets = sender.sent
            sent.seconds = time.perf_counter() - begin
            if on_frame is not None:
                on_frame(sent)
    return sent


def send_disturbed(
    sender: PacketSender,
    streams: Sequence[npt.NDArray[np.uint8]],
    trouble: Disturbance,
    generator: np.random.Generator,
    sent: Simulated,
    number: int,
    *,
    model: str = "jungfrau",
) -> None:
    """Send a frame packet by packet, with what goes wrong drawn from `generator` and entered in `sent`."""
    a_stream = len(streams[0])
    order = np.arange(len(streams) * a_stream)
    if trouble.shuffle:
        generator.shuffle(order)
    lost, twice, broken = (
        generator.random(len(order)) < share for share in (trouble.loss, trouble.duplicates, trouble.invalid)
    )
    for packet in order.tolist():
        stream, datagram = packet // a_stream, streams[packet // a_stream][packet % a_stream]
        if broken[packet]:
            sender.send_one(stream, _broken(datagram, int(generator.integers(4)), model))
            sent.invalid += 1
        if lost[packet]:
            sent.lost.setdefault(number, []).append(packet)
            continue
        sender.send_one(stream, datagram)
        if twice[packet]:
            sender.send_one(stream, datagram)
            sent.duplicates += 1
    sent.lost.get(number, []).sort()


def _broken(datagram: npt.NDArray[np.uint8], kind: int, model: str) -> npt.NDArray[np.uint8]:
    """Return a packet that no receiver may accept: too short, another version, or a packet number out of range."""
    if kind == 0:
        return datagram[: len(datagram) // 2]
    wrong = datagram.copy()
    if model == "gigafrost":
        wrong[0 if kind == 1 else 15] = 0xFF  # another protocol, or a starting row far outside
        return wrong
    header = wrong[:HEADER_BYTES].view(HEADER)
    if kind == 1:
        header["version"] = 1
    elif kind == 2:
        header["packet_number"] = 1 << 30
    else:
        header["detector_type"] = 255
    return wrong


def _headers(packets: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return np.ndarray(len(packets), HEADER, packets, strides=(packets.shape[1],))


def _gigafrost_packets(options: DetectorOptions, rows: npt.NDArray[Any], stream: int) -> npt.NDArray[Any]:
    """Return a stream's packets from its rows, (rows, pixels): (packets, bytes), or (packets,) of arrays."""
    starts = np.arange(0, len(rows), options.rows_per_packet)
    headers = gigafrost.make_headers(options.shape[1], options.shape[0], stream, starts)
    packets = []
    for header, start in zip(headers, starts.tolist(), strict=True):
        part = rows[start : start + options.rows_per_packet]
        padded = len(part) % 2 and part.shape[1] % 48
        rest = np.zeros(gigafrost.PADDING if padded else 0, np.uint8)
        packets.append(np.concatenate((np.frombuffer(header.tobytes(), np.uint8), gigafrost.pack12(part), rest)))
    if len({len(packet) for packet in packets}) == 1:
        return np.stack(packets)
    ragged = np.empty(len(packets), object)
    ragged[:] = packets
    return ragged


def _number_gigafrost(packets: npt.NDArray[Any], number: int, timestamp: int) -> None:
    for packet in packets:
        header = packet[: gigafrost.HEADER_BYTES].view(gigafrost.HEADER)
        header["frame_index"] = number
        header["timing"] = timestamp


def _streams_a_module(options: DetectorOptions) -> int:
    return options.interfaces if options.model == "jungfrau" else 2


def _row_column(options: DetectorOptions, stream: int) -> tuple[int, int]:
    if options.model == "eiger":
        return stream // 2, stream % 2
    return stream % options.interfaces, 0


def _rings(options: DetectorOptions, generator: np.random.Generator) -> npt.NDArray[Any]:
    """Draw a scattering image: rings around a beam centre over a falling background, Poisson counts, gaps empty."""
    ny, nx = options.shape
    centre_y, centre_x = ny * 0.5, nx * 0.5
    y = (np.arange(ny, dtype=np.float32) - centre_y)[:, None]
    x = (np.arange(nx, dtype=np.float32) - centre_x)[None, :]
    radius = np.sqrt(y * y + x * x, dtype=np.float32) / (0.5 * max(ny, nx))
    counts = 40.0 * np.exp(-3.0 * radius) + 1.0
    for place in generator.uniform(0.1, 0.9, 5):
        counts += 60.0 * (1.0 - place) * np.exp(-(((radius - place) / 0.01) ** 2))
    limit = (1 << min(options.packet_bits, 14)) - 2  # the largest value is a lost pixel; JUNGFRAU counts with 14 bits
    values = np.minimum(generator.poisson(counts), limit).astype(options.dtype)
    image = options.blank()
    for stream in range(options.streams):
        index = pixel_index(options, stream)
        image.reshape(-1)[index] = values.reshape(-1)[index]
    if options.model == "jungfrau":
        _set_gains(image, radius, options)
    return image


def _set_gains(image: npt.NDArray[Any], radius: npt.NDArray[np.float32], options: DetectorOptions) -> None:
    """Put the pixels around the beam into gain stage 1, as a JUNGFRAU's are where it is bright."""
    image[(radius < 0.02) & (image != options.gap_value)] |= np.uint16(1 << 14)

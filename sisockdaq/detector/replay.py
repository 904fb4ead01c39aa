"""Send recorded packets again: at a chosen rate, in order or shuffled, with packets left out where wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from sisockdaq.detector.description import HEADER_BYTES
from sisockdaq.detector.recording import PacketFormat, Recording, StreamRecording
from sisockdaq.detector.sender import Pacer, PacketSender
from sisockdaq.detector.simulator import Simulated

__all__ = ["replay"]


def replay(
    recording: Recording,
    targets: Sequence[tuple[str, int]] | None = None,
    *,
    rate: float | None = 10.0,
    repeat: int = 1,
    first_frame: int | None = None,
    spread: float = 0.5,
    shuffle: bool = False,
    loss: float = 0.0,
    drop: Collection[tuple[int, int]] = (),
    seed: int = 0,
    on_frame: Callable[[Simulated], None] | None = None,
    stop: threading.Event | None = None,
) -> Simulated:
    """Send a recording, frame by frame.

    Parameters
    ----------
    recording : Recording
    targets : sequence of (host, port), optional
        One a recorded port, in the order of its streams. Default: the recorded ports on this machine.
    rate : float or None
        Frames a second; None for as fast as it goes.
    repeat : int
        How often to send it all; each time with frame numbers that go on.
    first_frame : int, optional
        Number the frames anew from here. Default: the recorded numbers (of the first round).
    spread : float
        Share of the time between two frames over which a frame's packets are spread.
    shuffle : bool
        Send a frame's packets, all streams together, in random order.
    loss : float
        Share of packets to leave out.
    drop : collection of (stream, packet number)
        Packets to leave out of every frame; a GigaFRoST's are numbered by their starting rows.
    seed : int
        Of order and loss.
    on_frame : callable, optional
        Called after each frame.
    stop : threading.Event, optional
        Ends it between two frames.

    Returns
    -------
    Simulated
        ``lost`` holds, for each frame number, how the packets left out are numbered through the frame:
        ``record of the stream's frame + records of the streams before``.

    Raises
    ------
    ConnectionFailed
        When a target cannot be reached.
    """
    numbers = recording.frames
    addresses = targets or [("127.0.0.1", port) for port in recording.ports]
    generator = np.random.default_rng([seed, 2])
    shift = 0 if first_frame is None or not numbers else first_frame - numbers[0]
    sent = Simulated(numbers[0] + shift if numbers else 0)
    pacer = Pacer(rate, stop=stop)
    begin = time.perf_counter()
    size = _usual_length(recording)
    with PacketSender(addresses, size) as sender:
        for turn in range(repeat):
            for number in numbers:
                if not pacer.wait():
                    return sent
                new = number + shift + turn * (numbers[-1] - numbers[0] + 1)
                streams = [_frame(stream, number, new, recording.format) for stream in recording.streams]
                if not (shuffle or loss or drop) and all(len(p) and {len(x) for x in p} == {size} for p in streams):
                    sender.send_frame([np.stack(p) for p in streams], spread / rate if rate else 0.0)
                else:
                    left_out = _left_out(streams, loss, drop, generator, recording.format)
                    _send_one_by_one(sender, streams, new, sent, generator if shuffle else None, left_out)
                sent.frames += 1
                sent.packets = sender.sent
                sent.seconds = time.perf_counter() - begin
                if on_frame is not None:
                    on_frame(sent)
    return sent


_Packets = list[npt.NDArray[np.uint8]]


def _usual_length(recording: Recording) -> int:
    """The most frequent length of a datagram: that of the detector's packets."""
    lengths, counts = np.unique(np.concatenate([stream.length for stream in recording.streams]), return_counts=True)
    return int(lengths[counts.argmax()]) if len(lengths) else HEADER_BYTES


def _frame(stream: StreamRecording, number: int, new: int, form: PacketFormat) -> _Packets:
    """Return a stream's packets of one frame, under their new number."""
    records = np.flatnonzero(stream.frame == number)
    packets = [stream.datagram(record).copy() for record in records.tolist()]
    for packet in packets:
        form.set_frame(packet, new)
    return packets


def _left_out(
    streams: Sequence[_Packets],
    loss: float,
    drop: Collection[tuple[int, int]],
    generator: np.random.Generator,
    form: PacketFormat,
) -> set[tuple[int, int]]:
    """Return (stream, record) of the packets to leave out."""
    wanted = frozenset(drop)
    chosen = set()
    for index, packets in enumerate(streams):
        for record, packet in enumerate(packets):
            if (index, form.number(packet, form.packet)) in wanted or (loss and generator.random() < loss):
                chosen.add((index, record))
    return chosen


def _send_one_by_one(
    sender: PacketSender,
    streams: Sequence[_Packets],
    number: int,
    sent: Simulated,
    generator: np.random.Generator | None,
    left_out: set[tuple[int, int]],
) -> None:
    places = [(stream, record) for stream, packets in enumerate(streams) for record in range(len(packets))]
    lost = [index for index, place in enumerate(places) if place in left_out]
    if lost:
        sent.lost[number] = lost
    if generator is not None:
        generator.shuffle(places)
    for stream, record in places:
        if (stream, record) not in left_out:
            sender.send_one(stream, streams[stream][record])

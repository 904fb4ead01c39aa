"""The memory that the receiving kernel works on: a `Plan` that stays, a `State` that changes.

Both are tuples of integers and arrays, because that is what compiled code takes without cost. The names of columns
and places below are the only way to them, in the kernel and outside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sisockdaq.detector._libc import CONTROL_WORDS, IOV_MAX, MESSAGE_WORDS
from sisockdaq.detector.layout import Layout

__all__ = ["COUNTERS", "Memory", "Plan", "State", "make_plan", "make_state", "memory_of"]

Ints = npt.NDArray[np.int64]

# Columns of State.frames, one row a frame that is being assembled.
NUMBER, SLOT, RECEIVED, FIRST, LAST, OPENED, TIMESTAMP, TOTAL, MAXIMUM, STATUS = range(10)
FRAME_COLUMNS = 10

# Values of STATUS: CLOSED waits for an older frame, DONE waits for the engine to publish it.
FREE, OPEN, CLOSED, DONE = range(4)

# Columns of State.streams.
NEXT_FRAME, NEXT_PACKET, TRAIN, MODULE, WRONG_RUN, DRAINED, BUDGET = range(7)
STREAM_COLUMNS = 7

# Places in State.scalars.
FLOOR, NEWEST, OPEN_COUNT, LAST_VALID, SUSPECT, LATE_RUN = range(6)
FREE_COUNT, DONE_COUNT, RING_FULL, RECENT = range(6, 10)
SOCKET, MESSAGES, MESSAGE, PIECE, LINEAR_FROM, LANDINGS = range(10, 16)
RECORD, REALTIME, MONOTONIC = range(16, 19)
SCALARS = 19

# Places in State.counters. What is not received is named by kind.
PACKETS, DUPLICATE, LATE = range(3)
BAD_SIZE, BAD_VERSION, BAD_DETECTOR, BAD_PACKET, BAD_MODULE, BAD_NUMBER, NOT_STORED, MOVED, BYTES = range(3, 12)
COUNTERS = (
    "received",
    "duplicate",
    "late",
    "size",
    "version",
    "detector_type",
    "packet_number",
    "module",
    "frame_number",
    "not_stored",
    "moved",
    "bytes",
)
"""Names of the counters; from "size" to "not_stored" they are kinds of packets that are not used: invalid ones, and
those that a GigaFRoST marks as not to be stored."""

INVALID = slice(BAD_SIZE, NOT_STORED + 1)

MESSAGE_BYTES = 66048
"""Room for one message: more than the largest datagram (65507), a multiple of 64."""

_LARGEST_TRAIN = 65507
"""Bytes of the longest train of packets that the kernel hands over as one message (UDP_GRO)."""

_MOST_MESSAGES = 32
"""Messages taken with one call. More gains nothing: the copy out of the kernel is the limit."""


class Plan(NamedTuple):
    """What does not change while a receiver runs; the arrays of `Layout` included."""

    streams: int
    stream_packets: int
    packets: int
    datagram: int
    pixels: int
    item: int
    nibbles: int
    fill: int
    detector_type: int
    by_bunch: int
    overtaken_by: int
    timeout_ns: int
    slot_pixels: int
    pixels_address: int
    most_pieces: int
    most_messages: int
    fixed_modules: int
    first: Ints
    offset: Ints
    length: Ints
    step: Ints
    direct: Ints
    first_packet: Ints
    linear_address: int
    messages_address: int
    parts_address: int
    control_address: int
    poll_address: int
    clock_address: int


class Memory(NamedTuple):
    """The same memory as bytes and as pixels of two and four bytes."""

    one: npt.NDArray[np.uint8]
    two: npt.NDArray[np.uint16]
    four: npt.NDArray[np.uint32]


def memory_of(flat: npt.NDArray[Any]) -> Memory:
    """Return the views of a contiguous row of memory."""
    octets = flat.view(np.uint8)
    return Memory(octets, octets[: len(octets) // 2 * 2].view("<u2"), octets[: len(octets) // 4 * 4].view("<u4"))


class State(NamedTuple):
    """What the kernel changes.

    ``frames``: the frames being assembled; ``masks``: their packets received, as bits; ``free``: slots in hand;
    ``done``: finished frames (rows of ``frames``) in the order to publish; ``landing``: where each packet of a batch
    was predicted, as (slot, packet); ``linear``: a room of `MESSAGE_BYTES` for each message, where every header lands
    and every payload that has no predicted place.
    """

    frames: Ints
    masks: npt.NDArray[np.uint8]
    streams: Ints
    scalars: Ints
    counters: Ints
    free: Ints
    done: Ints
    landing: npt.NDArray[np.int64]
    messages: Ints
    parts: Ints
    control: Ints
    poll: npt.NDArray[np.int32]
    clock: Ints
    linear: npt.NDArray[np.uint8]
    words: Ints
    linear_pixels: Memory


def make_state(layout: Layout, overtaken_by: int, sockets: list[int], wake: int, *, trains: bool = False) -> State:
    """Allocate a state.

    Parameters
    ----------
    layout : Layout
        The detector's packets.
    overtaken_by : int
        Distance at which a newer frame closes an older one; sets how many frames are assembled at once.
    sockets : list of int
        File descriptors, one a stream.
    wake : int
        File descriptor that interrupts the wait when it becomes readable.
    trains : bool
        Whether the sockets hand over trains of packets whole.
    """
    options = layout.options
    frames, pieces = 2 * overtaken_by + 4, _most_pieces(layout)
    messages = _MOST_MESSAGES
    linear = np.zeros(messages * MESSAGE_BYTES, np.uint8)
    table = np.zeros((frames, FRAME_COLUMNS), np.int64)
    table[:, NUMBER] = -1
    streams = np.zeros((options.streams, STREAM_COLUMNS), np.int64)
    streams[:, NEXT_FRAME] = -1
    streams[:, TRAIN] = 2 if trains else 1
    streams[:, MODULE] = options.module_ids or -1
    scalars = np.zeros(SCALARS, np.int64)
    scalars[[FLOOR, NEWEST, SUSPECT, SOCKET]] = -1
    watched = np.zeros((options.streams + 1, 2), np.int32)
    watched[:, 0] = [*sockets, wake]
    watched[:, 1] = 1  # POLLIN
    return State(
        frames=table,
        masks=np.zeros((frames, -(-options.packets_per_frame // 8)), np.uint8),
        streams=streams,
        scalars=scalars,
        counters=np.zeros(len(COUNTERS), np.int64),
        free=np.zeros(64, np.int64),
        done=np.zeros(frames, np.int64),
        landing=np.zeros((messages, pieces, 2), np.int64),
        messages=np.zeros((messages, MESSAGE_WORDS), np.int64),
        parts=np.zeros((messages * IOV_MAX, 2), np.int64),
        control=np.zeros((messages, CONTROL_WORDS), np.int64),
        poll=watched,
        clock=np.zeros(2, np.int64),
        linear=linear,
        words=linear.view(np.int64),
        linear_pixels=memory_of(linear),
    )


def make_plan(
    layout: Layout,
    state: State,
    pixels: npt.NDArray[Any],
    *,
    overtaken_by: int,
    timeout: float,
    by_bunch: bool,
    trains: bool = False,
) -> Plan:
    """Gather the constants; `pixels` is the producer's memory, (slots, ny, nx), `timeout` in seconds."""
    options = layout.options
    item = options.dtype.itemsize
    pieces = _most_pieces(layout)
    a_message = pieces if trains else 1
    return Plan(
        streams=options.streams,
        stream_packets=options.packets_per_stream,
        packets=options.packets_per_frame,
        datagram=options.datagram_bytes,
        pixels=options.payload_bytes * 8 // options.packet_bits,
        item=item,
        nibbles=int(options.bit_depth == 4),
        fill=options.fill,
        detector_type=options.detector_type,
        by_bunch=int(by_bunch),
        overtaken_by=overtaken_by,
        timeout_ns=int(timeout * 1e9),
        slot_pixels=pixels.strides[0] // item,
        pixels_address=pixels.ctypes.data,
        most_pieces=pieces,
        most_messages=max(1, min(_MOST_MESSAGES, options.packets_per_stream // a_message)),
        fixed_modules=int(options.module_ids is not None),
        first=layout.first,
        offset=layout.offset,
        length=layout.count,
        step=layout.step,
        direct=layout.direct,
        first_packet=np.array([options.first_packet(s) for s in range(options.streams)], np.int64),
        linear_address=state.linear.ctypes.data,
        messages_address=state.messages.ctypes.data,
        parts_address=state.parts.ctypes.data,
        control_address=state.control.ctypes.data,
        poll_address=state.poll.ctypes.data,
        clock_address=state.clock.ctypes.data,
    )


def _most_pieces(layout: Layout) -> int:
    """Packets of one message that are received in place: a whole train, unless the parts would be too many."""
    options = layout.options
    segments = int(np.diff(layout.first).max())
    return max(1, min(_LARGEST_TRAIN // options.datagram_bytes, (IOV_MAX - 1) // (segments + 1)))

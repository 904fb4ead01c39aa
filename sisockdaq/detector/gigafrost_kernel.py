"""The receiving loop for GigaFRoST: packets of 12-bit pixels, unpacked straight into the ring, without the GIL.

Waiting, reading and the rules of frames are those of the other detectors (`kernel`, `_assembly`); what differs is the
header, that a packet's place follows from its starting row and its length, and that two pixels come in three bytes, so
that no payload can be received in place. A packet's header says which stream it belongs to: ports may be swapped.

A packet must hold the rows that the description expects of it. Where the camera sends other packets, they are counted
under ``size``, and `rows_seen` tells how many rows the camera's full packets have.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from sisockdaq.detector import _assembly as assembly
from sisockdaq.detector._assembly import accept, find, is_received, judge, open_frame
from sisockdaq.detector._jit import compiled, inlined, inner
from sisockdaq.detector._tables import (
    BAD_DETECTOR,
    BAD_NUMBER,
    BAD_PACKET,
    BAD_SIZE,
    BYTES,
    DONE_COUNT,
    DUPLICATE,
    FREE_COUNT,
    LATE,
    MESSAGE,
    MESSAGE_BYTES,
    MESSAGES,
    MODULE,
    MOVED,
    NOT_STORED,
    OPEN,
    PACKETS,
    PIECE,
    RECORD,
    RING_FULL,
    SLOT,
    SOCKET,
    STATUS,
    TRAIN,
    Memory,
    Plan,
    State,
    make_plan,
    make_state,
    memory_of,
)
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.gigafrost import HEADER_BYTES, PADDING, STREAMS
from sisockdaq.detector.kernel import FRAMES, NEED_SLOT, RECORDED, next_ready, packet_bytes, take, wait
from sisockdaq.detector.layout import Layout

__all__ = ["receive", "rows_seen", "warm_up"]

Masks = npt.NDArray[np.uint8]

_DO_NOT_STORE = 0x80
"""Bit 15 of the image status, in its second byte."""

_TIMESTAMP = (1 << 40) - 1


def warm_up() -> None:
    """Compile the loop, or load it from the cache: not to be left to the first packet."""
    options = DetectorOptions.checked(model="gigafrost", image_width=24, image_height=4)
    masks = np.zeros((1, -(-options.packets_per_frame // 8)), np.uint8)
    pixels = np.zeros((1, *options.shape), options.dtype)
    memory = memory_of(pixels.reshape(-1))
    bell = os.eventfd(1)
    try:
        layout = Layout.of(options)
        state = make_state(layout, 1, [-1] * options.streams, bell)
        plan = make_plan(layout, state, pixels, overtaken_by=1, timeout=1.0, by_bunch=False)
        receive(plan, state, memory, masks, 0)
        assembly.close_all(plan, state, memory, masks)
    finally:
        os.close(bell)


def rows_seen(state: State) -> int | None:
    """Return how many rows the camera's full packets have, where they are not those of the description; else None."""
    seen = int(state.streams[:STREAMS, MODULE].max())
    return seen if seen > 0 else None


@compiled
def receive(plan: Plan, state: State, memory: Memory, masks: Masks, wait_ms: int) -> int:
    """Receive until there is something for the engine to do; as `kernel.receive`."""
    scalars = state.scalars
    while True:
        if scalars[SOCKET] >= 0:
            if not _process(plan, state, memory, masks):
                return NEED_SLOT
            if scalars[DONE_COUNT] > 0:
                return FRAMES
        stream = next_ready(state)
        if stream >= 0:
            if take(plan, state, stream) and scalars[RECORD]:
                return RECORDED
            continue
        code = wait(plan, state, memory, masks, wait_ms)
        if code:
            return code


@inlined
def _process(plan: Plan, state: State, memory: Memory, masks: Masks) -> bool:
    """Handle the batch that was read, from where it was left; False when the engine must act first."""
    scalars = state.scalars
    while scalars[MESSAGE] < scalars[MESSAGES]:
        message = scalars[MESSAGE]
        length = state.messages[message, 7] & 0xFFFFFFFF
        size = packet_bytes(state, message, length)
        pieces = max(1, -(-length // size))
        while scalars[PIECE] < pieces:
            at = scalars[PIECE] * size
            if not _packet(plan, state, memory, masks, message * MESSAGE_BYTES + at, min(size, length - at)):
                return False
            scalars[PIECE] += 1
        state.streams[scalars[SOCKET], TRAIN] = max(pieces, state.streams[scalars[SOCKET], TRAIN] - 1)
        scalars[PIECE] = 0
        scalars[MESSAGE] += 1
    scalars[SOCKET] = -1
    return True


@inner
def _packet(plan: Plan, state: State, memory: Memory, masks: Masks, at: int, size: int) -> bool:
    """Check one packet, unpack and count it; False when a slot or room is needed first."""
    counters = state.counters
    kind, packet = _identify(plan, state, at, size)
    if kind:
        counters[kind] += 1
        return True
    number = _word(state, at + 8)
    row = find(state, number)
    if row >= 0:
        if is_received(state, row, packet):
            counters[DUPLICATE] += 1
            return True
        if state.frames[row, STATUS] != OPEN:
            counters[LATE] += 1
            return True
    else:
        verdict = judge(plan, state, number)
        if verdict == assembly.IS_LATE:
            counters[DUPLICATE if assembly.was_received(state, number, packet) else LATE] += 1
            return True
        if verdict == assembly.IS_SUSPECT:
            counters[BAD_NUMBER] += 1
            return True
        if state.scalars[FREE_COUNT] == 0 and state.scalars[RING_FULL] == 0:
            return False
        row = open_frame(plan, state, memory, masks, number)
        if row < 0:
            return False
    slot = state.frames[row, SLOT]
    if slot >= 0:
        _unpack(plan, state, memory, at + HEADER_BYTES, slot, packet)
        counters[MOVED] += 1
    counters[PACKETS] += 1
    counters[BYTES] += size
    accept(plan, state, memory, masks, row, packet, (_word(state, at + 16) | _word(state, at + 20) << 32) & _TIMESTAMP)
    return True


@inlined
def _identify(plan: Plan, state: State, at: int, size: int) -> tuple[int, int]:
    """Return (counter of what is wrong or 0, the packet's number in the frame)."""
    octets = state.linear
    if size <= HEADER_BYTES:
        return BAD_SIZE, 0
    if octets[at] != plan.detector_type:
        return BAD_DETECTOR, 0
    first = plan.first[0]
    a_row = plan.length[first] * 3 // 2
    stream_rows = plan.first[plan.stream_packets] - first
    full = plan.first[1] - first
    if octets[at + 1] * 18 != a_row:
        return BAD_SIZE, 0
    start = octets[at + 14] | octets[at + 15] << 8
    payload = size - HEADER_BYTES
    if start >= stream_rows:
        return BAD_PACKET, 0
    rows = min(full, stream_rows - start)
    rest = payload - rows * a_row
    fits = rest == 0 or (rest == PADDING and rows % 2 == 1 and plan.length[first] % 48 != 0)
    if start % full != 0 or not fits:
        if start == 0:
            state.streams[state.scalars[SOCKET], MODULE] = payload // a_row
        return BAD_SIZE, 0
    if octets[at + 13] & _DO_NOT_STORE:
        return NOT_STORED, 0
    return 0, (octets[at + 3] >> 5) * plan.stream_packets + start // full


@inlined
def _word(state: State, at: int) -> int:
    """Read 32 bits, little endian, from any place."""
    octets = state.linear
    return (
        np.int64(octets[at])  # type: ignore[return-value]
        | np.int64(octets[at + 1]) << 8
        | np.int64(octets[at + 2]) << 16
        | np.int64(octets[at + 3]) << 24
    )


@inner
def _unpack(plan: Plan, state: State, memory: Memory, source: int, slot: int, packet: int) -> None:
    """Spread a payload's 12-bit pixels over its rows of the image."""
    octets, pixels = state.linear, memory.two
    for segment in range(plan.first[packet], plan.first[packet + 1]):
        target = np.uint64(slot * plan.slot_pixels + plan.offset[segment])
        pairs = np.uint64(plan.length[segment] >> 1)
        for pair in range(pairs):
            three = np.uint64(source) + np.uint64(3) * pair
            low, middle, high = octets[three], octets[three + np.uint64(1)], octets[three + np.uint64(2)]
            at = target + np.uint64(2) * pair
            pixels[at] = np.uint16(low) | np.uint16((middle & 15) << 8)
            pixels[at + np.uint64(1)] = np.uint16(middle >> 4) | np.uint16(high << 4)
        source += plan.length[segment] * 3 // 2

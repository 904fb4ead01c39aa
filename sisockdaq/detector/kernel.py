"""The receiving loop: packets from many sockets straight into the ring, compiled, without the GIL.

How a packet gets into place: before a batch is read, each of its packets has a predicted place (the next packet of
its stream that is not in yet), and the kernel is told to put the payload there, in as many parts as the image's rows
demand. The header lands beside it. Where the header agrees, the packet is done: it was copied once. At the first
header that does not agree, all the rest of the batch is first copied out of the image, then each packet is put where
its header says, so that no payload is overwritten before it was looked at.

Only places of packets that were **not** received are ever predicted; whatever lands there wrongly is overwritten by
the right packet or, when the frame is closed, by the fill value. Duplicates, late and invalid packets therefore can
not touch a received pixel. Where nothing can be predicted, payloads land in a room of their own and are copied.

Trains of packets (``UDP_GRO``) are taken whole: one message then holds several packets of a stream.

No socket is read for more than one frame at a time, so that a backlog in many sockets does not make one stream
overtake the others; and a frame's time is over only when all sockets have been read up to that moment.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from sisockdaq.detector import _assembly as assembly
from sisockdaq.detector._assembly import accept, close_overdue, find, is_quiet, is_received, judge, open_frame, place
from sisockdaq.detector._jit import compiled, inlined, inner
from sisockdaq.detector._libc import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CONTROL_WORDS,
    IOV_MAX,
    clock_ns,
    memcpy,
    poll,
    recvmmsg,
)
from sisockdaq.detector._tables import (
    BAD_DETECTOR,
    BAD_MODULE,
    BAD_NUMBER,
    BAD_PACKET,
    BAD_SIZE,
    BAD_VERSION,
    BUDGET,
    BYTES,
    DONE_COUNT,
    DRAINED,
    DUPLICATE,
    FREE_COUNT,
    LANDINGS,
    LATE,
    LINEAR_FROM,
    MESSAGE,
    MESSAGE_BYTES,
    MESSAGES,
    MODULE,
    MONOTONIC,
    MOVED,
    NEXT_FRAME,
    NEXT_PACKET,
    NUMBER,
    OPEN,
    PACKETS,
    PIECE,
    REALTIME,
    RECORD,
    RING_FULL,
    SLOT,
    SOCKET,
    STATUS,
    TRAIN,
    WRONG_RUN,
    Memory,
    Plan,
    State,
    make_plan,
    make_state,
    memory_of,
)
from sisockdaq.detector.description import HEADER_BYTES, DetectorOptions
from sisockdaq.detector.formats import HEADER_VERSION
from sisockdaq.detector.layout import Layout

__all__ = [
    "FRAMES",
    "IDLE",
    "NEED_SLOT",
    "RECORDED",
    "WOKEN",
    "next_ready",
    "packet_bytes",
    "receive",
    "take",
    "wait",
    "warm_up",
]

Masks = npt.NDArray[np.uint8]

FRAMES, NEED_SLOT, WOKEN, IDLE, RECORDED = 1, 2, 3, 4, 5
"""Why `receive` came back: finished frames are listed; a frame begins and no slot is in hand (or finished frames must
be taken first); the wake descriptor became readable; the wait was over; a batch is there to be recorded."""

_DONTWAIT = 0x40
_POLLIN = 1
_GRO = 17 | 104 << 32
"""Level and type of the control entry that tells the size of a train's packets: SOL_UDP, UDP_GRO."""

_SPARE, _NOWHERE = -1, -2
"""In place of a frame's row in a prediction: the next slot in hand, for a frame that has not begun; no place."""

_LARGEST_NUMBER = 1 << 62


def warm_up() -> None:
    """Compile the loop, or load it from the cache: not to be left to the first packet."""
    options = DetectorOptions.checked(model="eiger", module_positions={0: (0, 0, 513, 255)})
    masks = np.zeros((1, -(-options.packets_per_frame // 8)), np.uint8)
    pixels = np.zeros((1, *options.shape), options.dtype)
    memory = memory_of(pixels.reshape(-1))
    bell = os.eventfd(1)
    try:
        layout = Layout.of(options)
        state = make_state(layout, 1, [-1], bell)
        plan = make_plan(layout, state, pixels, overtaken_by=1, timeout=1.0, by_bunch=False)
        receive(plan, state, memory, masks, 0)
        assembly.close_all(plan, state, memory, masks)
    finally:
        os.close(bell)


@compiled
def receive(plan: Plan, state: State, memory: Memory, masks: Masks, wait_ms: int) -> int:
    """Receive until there is something for the engine to do; see `FRAMES` and its companions.

    Parameters
    ----------
    plan, state
        As made for this detector and these sockets.
    memory : Memory
        All slots' pixels, flat.
    masks : ndarray of uint8, (slots, ⌈packets / 8⌉)
    wait_ms : int
        Longest time without a packet before it comes back with IDLE [ms].
    """
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
def next_ready(state: State) -> int:
    """Return the first stream that may have packets, or −1."""
    for stream in range(len(state.streams)):
        if state.streams[stream, BUDGET] > 0:
            return stream
    return -1


@inlined
def _tick(plan: Plan, state: State) -> None:
    state.scalars[MONOTONIC] = clock_ns(CLOCK_MONOTONIC, state.clock, plan.clock_address)
    state.scalars[REALTIME] = clock_ns(CLOCK_REALTIME, state.clock, plan.clock_address)


@inner
def wait(plan: Plan, state: State, memory: Memory, masks: Masks, wait_ms: int) -> int:
    """Wait for packets; close what is overdue. Returns 0 to go on, else why `receive` must come back."""
    ready = poll(plan.poll_address, plan.streams + 1, wait_ms)
    _tick(plan, state)
    now = state.scalars[MONOTONIC]
    if ready < 0:  # a signal came; nothing is known of the sockets
        return IDLE
    drained = now
    for stream in range(plan.streams):
        if (state.poll[stream, 1] >> 16) & 0xFFFF:
            state.streams[stream, BUDGET] = plan.stream_packets
        else:
            state.streams[stream, DRAINED] = now
        drained = min(drained, state.streams[stream, DRAINED])
    close_overdue(plan, state, memory, masks, drained)
    if state.scalars[DONE_COUNT] > 0:
        return FRAMES
    if (state.poll[plan.streams, 1] >> 16) & _POLLIN:
        return WOKEN
    return IDLE if ready == 0 else 0


@inlined
def take(plan: Plan, state: State, stream: int) -> bool:
    """Read one batch from a socket that is ready; False where nothing was left in it."""
    scalars, streams = state.scalars, state.streams
    wanted = _predict(plan, state, stream)
    got = recvmmsg(state.poll[stream, 0], plan.messages_address, wanted, _DONTWAIT, 0)
    _tick(plan, state)
    if got < wanted:
        streams[stream, BUDGET] = 0
        streams[stream, DRAINED] = scalars[MONOTONIC]
    if got <= 0:
        return False
    for message in range(got):
        length = state.messages[message, 7] & 0xFFFFFFFF
        streams[stream, BUDGET] -= max(1, length // plan.datagram)
    scalars[SOCKET] = stream
    scalars[MESSAGES] = got
    scalars[MESSAGE] = 0
    scalars[PIECE] = 0
    scalars[LINEAR_FROM] = got if scalars[LANDINGS] > 0 else 0
    return True


@inlined
def _predict(plan: Plan, state: State, stream: int) -> int:
    """Give each packet of the next batch its place; returns how many messages to ask for."""
    messages, parts, landing = state.messages, state.parts, state.landing
    train = state.streams[stream, TRAIN] > 1
    pieces = plan.most_pieces if train else 1
    if plan.direct[stream] == 0 or state.scalars[RECORD]:
        pieces = 0
    wanted = 1 if train else plan.most_messages
    state.scalars[LANDINGS] = pieces
    row, number, packet = _first_place(plan, state, stream)
    for message in range(wanted):
        room = plan.linear_address + message * MESSAGE_BYTES
        part = message * IOV_MAX
        for piece in range(pieces):
            row, number, packet = _next_place(plan, state, stream, row, number, packet)
            slot = _slot_of(state, row)
            landing[message, piece, 0] = slot
            landing[message, piece, 1] = stream * plan.stream_packets + packet
            parts[part, 0] = room + piece * plan.datagram
            parts[part, 1] = HEADER_BYTES if slot >= 0 else plan.datagram
            part += 1
            if slot >= 0:
                part = _aim(plan, state, part, slot, landing[message, piece, 1])
            packet += 1
        parts[part, 0] = room + pieces * plan.datagram
        parts[part, 1] = MESSAGE_BYTES - pieces * plan.datagram
        messages[message, 2] = plan.parts_address + message * IOV_MAX * 16
        messages[message, 3] = part + 1 - message * IOV_MAX
        messages[message, 4] = plan.control_address + message * CONTROL_WORDS * 8
        messages[message, 5] = CONTROL_WORDS * 8
        messages[message, 6] = 0
    return wanted


@inlined
def _aim(plan: Plan, state: State, part: int, slot: int, packet: int) -> int:
    """Name the image's segments of a packet as the next parts of a message; returns the part after them."""
    base = plan.pixels_address + slot * plan.slot_pixels * plan.item
    for segment in range(plan.first[packet], plan.first[packet + 1]):
        state.parts[part, 0] = base + plan.offset[segment] * plan.item
        state.parts[part, 1] = plan.length[segment] * plan.item
        part += 1
    return part


@inner
def _first_place(plan: Plan, state: State, stream: int) -> tuple[int, int, int]:
    """Where a stream's next packet should belong: (row, frame number, packet of the stream)."""
    number = state.streams[stream, NEXT_FRAME]
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] == OPEN and state.frames[row, NUMBER] == number:
            return row, number, state.streams[stream, NEXT_PACKET]
    return _next_frame(state, number)


@inner
def _next_frame(state: State, number: int) -> tuple[int, int, int]:
    found = _SPARE
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] != OPEN or state.frames[row, NUMBER] <= number:
            continue
        if found < 0 or state.frames[row, NUMBER] < state.frames[found, NUMBER]:
            found = row
    return found, (state.frames[found, NUMBER] if found >= 0 else number), 0


@inlined
def _next_place(plan: Plan, state: State, stream: int, row: int, number: int, packet: int) -> tuple[int, int, int]:
    """Go on from a place to the next one that is not taken."""
    first = stream * plan.stream_packets
    while True:
        if row >= 0:
            while packet < plan.stream_packets and is_received(state, row, first + packet):
                packet += 1
        if packet < plan.stream_packets:
            return row, number, packet
        if row < 0:
            return _NOWHERE, number, 0
        row, number, packet = _next_frame(state, number)


@inlined
def _slot_of(state: State, row: int) -> int:
    if row >= 0:
        return int(state.frames[row, SLOT])
    if row == _SPARE and state.scalars[FREE_COUNT] > 0:
        return int(state.free[state.scalars[FREE_COUNT] - 1])
    return -1


@inlined
def _process(plan: Plan, state: State, memory: Memory, masks: Masks) -> bool:
    """Handle the batch that was read, from where it was left; False when the engine must act first."""
    scalars = state.scalars
    stream = scalars[SOCKET]
    while scalars[MESSAGE] < scalars[MESSAGES]:
        message = scalars[MESSAGE]
        length = state.messages[message, 7] & 0xFFFFFFFF
        size = packet_bytes(state, message, length)
        if size != plan.datagram:
            _linearise(plan, state)
        pieces = max(1, -(-length // size))
        while scalars[PIECE] < pieces:
            if not _packet(plan, state, memory, masks, scalars[PIECE], size, length):
                return False
            scalars[PIECE] += 1
        state.streams[stream, TRAIN] = max(pieces, state.streams[stream, TRAIN] - 1)
        scalars[PIECE] = 0
        scalars[MESSAGE] += 1
    scalars[SOCKET] = -1
    return True


@compiled
def packet_bytes(state: State, message: int, length: int) -> int:
    """Size of the packets in a message: as the kernel says of a train, else the message itself (1 where empty)."""
    if state.messages[message, 5] >= 20 and state.control[message, 1] == _GRO:
        return max(1, int(state.control[message, 2] & 0xFFFFFFFF))
    return max(1, length)


@inner
def _linearise(plan: Plan, state: State) -> None:
    """Copy the payloads of the rest of the batch out of the image, each behind its header."""
    scalars = state.scalars
    begin = scalars[MESSAGE]
    for message in range(begin, scalars[LINEAR_FROM]):
        for piece in range(scalars[LANDINGS]):
            slot = state.landing[message, piece, 0]
            if slot < 0 or piece * plan.datagram >= state.messages[message, 7] & 0xFFFFFFFF:
                continue
            packet = state.landing[message, piece, 1]
            address = plan.linear_address + message * MESSAGE_BYTES + piece * plan.datagram + HEADER_BYTES
            for segment in range(plan.first[packet], plan.first[packet + 1]):
                source = plan.pixels_address + (slot * plan.slot_pixels + plan.offset[segment]) * plan.item
                memcpy(address, source, plan.length[segment] * plan.item)
                address += plan.length[segment] * plan.item
    scalars[LINEAR_FROM] = min(scalars[LINEAR_FROM], begin)


@inlined
def _packet(plan: Plan, state: State, memory: Memory, masks: Masks, piece: int, size: int, length: int) -> bool:
    """Check one packet, see that its pixels are in place, count it; False when a slot is needed first."""
    counters = state.counters
    stream, message = state.scalars[SOCKET], state.scalars[MESSAGE]
    at = message * MESSAGE_BYTES + piece * size
    if min(size, length - piece * size) != plan.datagram:
        counters[BAD_SIZE] += 1
        return True
    if size != plan.datagram:  # the last of a train of longer packets: bring it to an aligned place
        at = message * MESSAGE_BYTES
        memcpy(plan.linear_address + at, plan.linear_address + at + piece * size, plan.datagram)
    header = at >> 3
    kind = _invalid(plan, state, stream, header)
    if kind:
        counters[kind] += 1
        return True
    number = state.words[header + 2] if plan.by_bunch else state.words[header]
    packet = (state.words[header + 1] >> 32) - plan.first_packet[stream] + stream * plan.stream_packets
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
    return _settle(plan, state, memory, masks, piece, at, row, number, packet)


@inlined
def _settle(
    plan: Plan, state: State, memory: Memory, masks: Masks, piece: int, at: int, row: int, number: int, packet: int
) -> bool:
    """Put a good packet into its place, unless it landed there, and count it; False when room is needed first."""
    stream, message = state.scalars[SOCKET], state.scalars[MESSAGE]
    slot = _slot_of(state, row if row >= 0 else _SPARE)
    in_place = message < state.scalars[LINEAR_FROM] and piece < state.scalars[LANDINGS] and slot >= 0
    if in_place:
        in_place = state.landing[message, piece, 0] == slot and state.landing[message, piece, 1] == packet
    if not in_place:
        _linearise(plan, state)
    if row < 0:
        row = open_frame(plan, state, memory, masks, number)
        if row < 0:
            return False
    if slot >= 0 and not in_place:
        place(plan, state, memory, at + HEADER_BYTES, slot, packet)
        state.counters[MOVED] += 1
    state.counters[PACKETS] += 1
    state.counters[BYTES] += plan.datagram
    state.streams[stream, NEXT_FRAME] = number
    state.streams[stream, NEXT_PACKET] = packet - stream * plan.stream_packets + 1
    accept(plan, state, memory, masks, row, packet, state.words[(at >> 3) + 3])
    return True


@inlined
def _invalid(plan: Plan, state: State, stream: int, header: int) -> int:
    """Return the counter of what is wrong with a header, or 0."""
    words = state.words
    if (words[header + 5] >> 56) & 0xFF != HEADER_VERSION:
        return BAD_VERSION
    if (words[header + 5] >> 48) & 0xFF != plan.detector_type:
        return BAD_DETECTOR
    packet = ((words[header + 1] >> 32) & 0xFFFFFFFF) - plan.first_packet[stream]
    if packet < 0 or packet >= plan.stream_packets:
        return BAD_PACKET
    module = words[header + 4] & 0xFFFF
    if module != state.streams[stream, MODULE]:
        known = state.streams[stream, MODULE] >= 0
        state.streams[stream, WRONG_RUN] += 1
        patient = state.streams[stream, WRONG_RUN] <= plan.stream_packets and not is_quiet(plan, state)
        if known and (plan.fixed_modules or patient):
            return BAD_MODULE
        state.streams[stream, MODULE] = module
    state.streams[stream, WRONG_RUN] = 0
    number = words[header + 2] if plan.by_bunch else words[header]
    if number < 0 or number >= _LARGEST_NUMBER or (plan.by_bunch and number == 0):
        return BAD_NUMBER
    return 0

"""Which frame a packet belongs to, and when a frame is finished. Compiled, but pure: no socket, no clock.

The rules:

- A frame is closed when its last packet arrives, when a newer frame has overtaken it by a set distance (in frame
  numbers; in frames where the image id is a bunch id), or after a set time. What is missing then gets the fill value.
- Frames are published in the order of their numbers: a complete frame waits for an older open one, which the same
  two limits close.
- A packet of a frame that was published, or that can no longer be, is late. After a pause (nothing open, nothing
  valid for the set time) nothing can be late: lower numbers are then a detector that has begun anew. Without a
  pause, that is believed after as many late packets in a row as the open frames could account for.
- A number far above all others needs a second packet to vouch for it: one broken header must not close the frames
  that are being received.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.detector._jit import compiled, inlined, inner
from sisockdaq.detector._libc import memcpy
from sisockdaq.detector._tables import (
    CLOSED,
    DONE,
    DONE_COUNT,
    FIRST,
    FLOOR,
    FREE,
    FREE_COUNT,
    LAST,
    LAST_VALID,
    LATE_RUN,
    MAXIMUM,
    MONOTONIC,
    NEWEST,
    NUMBER,
    OPEN,
    OPEN_COUNT,
    OPENED,
    REALTIME,
    RECEIVED,
    RECENT,
    RING_FULL,
    SLOT,
    STATUS,
    SUSPECT,
    TIMESTAMP,
    TOTAL,
    Memory,
    Plan,
    State,
)

__all__ = [
    "ACCEPT",
    "IS_LATE",
    "IS_SUSPECT",
    "NO_ROOM",
    "accept",
    "close_all",
    "close_overdue",
    "find",
    "is_quiet",
    "is_received",
    "judge",
    "open_frame",
    "place",
    "was_received",
]

Masks = npt.NDArray[np.uint8]

ACCEPT, IS_LATE, IS_SUSPECT, NO_ROOM = 0, -1, -2, -3

_FAR = 1 << 20
"""A jump of this many frames needs a second packet to be believed; at 2 kHz it is nine minutes of silence."""

_NEAR = 64
"""Two far numbers this close to each other vouch for each other."""


@inlined
def find(state: State, number: int) -> int:
    """Return the row of the open or closed frame of that number, or −1."""
    frames = state.frames
    recent = state.scalars[RECENT]
    if frames[recent, NUMBER] == number and OPEN <= frames[recent, STATUS] <= CLOSED:
        return int(recent)
    for row in range(len(frames)):
        if frames[row, NUMBER] == number and OPEN <= frames[row, STATUS] <= CLOSED:
            state.scalars[RECENT] = row
            return row
    return -1


@inner
def is_quiet(plan: Plan, state: State) -> bool:
    """Whether no frame is open and nothing valid has come for the set time: what comes now is a new beginning."""
    scalars = state.scalars
    return bool(scalars[OPEN_COUNT] == 0 and scalars[MONOTONIC] - scalars[LAST_VALID] > plan.timeout_ns)


@inner
def judge(plan: Plan, state: State, number: int) -> int:
    """Say whether a frame of a number that is not being assembled may begin: ACCEPT, IS_LATE or IS_SUSPECT."""
    scalars = state.scalars
    newest = scalars[NEWEST]
    if newest < 0:
        return ACCEPT
    quiet = is_quiet(plan, state)
    if number <= scalars[FLOOR] or _overtaken(plan, state, number):
        scalars[LATE_RUN] += 1
        if quiet or scalars[LATE_RUN] > plan.packets * plan.overtaken_by:
            scalars[NEWEST] = -1
            return ACCEPT
        return IS_LATE
    if number - newest > _FAR and plan.by_bunch == 0 and not quiet and abs(number - scalars[SUSPECT]) > _NEAR:
        scalars[SUSPECT] = number
        return IS_SUSPECT
    return ACCEPT


@inner
def _overtaken(plan: Plan, state: State, number: int) -> bool:
    """Whether newer frames have already overtaken a frame that has not begun."""
    if plan.by_bunch == 0:
        return bool(state.scalars[NEWEST] - number >= plan.overtaken_by)
    newer = 0
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] == OPEN and state.frames[row, NUMBER] > number:
            newer += 1
    return newer >= plan.overtaken_by


@inner
def open_frame(plan: Plan, state: State, memory: Memory, masks: Masks, number: int) -> int:
    """Begin a frame that `judge` accepted; closes those it overtakes.

    Returns
    -------
    int
        Its row, or NO_ROOM where the engine must first take finished frames away. The slot is −1 where the ring is
        full.
    """
    scalars, frames = state.scalars, state.frames
    if scalars[NEWEST] < 0:
        close_all(plan, state, memory, masks)
        scalars[FLOOR] = -1
    elif plan.by_bunch:
        while scalars[OPEN_COUNT] >= plan.overtaken_by:
            _close(plan, state, memory, masks, _oldest(state, OPEN))
    else:
        for row in range(len(frames)):
            if frames[row, STATUS] == OPEN and number - frames[row, NUMBER] >= plan.overtaken_by:
                _close(plan, state, memory, masks, row)
    _promote(state)
    row = _stalest(state)
    if row < 0:
        return NO_ROOM
    frames[row, :] = 0
    frames[row, NUMBER] = number
    frames[row, STATUS] = OPEN
    frames[row, FIRST] = scalars[REALTIME]
    frames[row, OPENED] = scalars[MONOTONIC]
    frames[row, SLOT] = -1
    if scalars[FREE_COUNT] > 0:
        scalars[FREE_COUNT] -= 1
        frames[row, SLOT] = state.free[scalars[FREE_COUNT]]
    scalars[RING_FULL] = 0
    state.masks[row, :] = 0
    scalars[OPEN_COUNT] += 1
    scalars[RECENT] = row
    scalars[NEWEST] = max(scalars[NEWEST], number)
    return row


@inlined
def accept(plan: Plan, state: State, memory: Memory, masks: Masks, row: int, packet: int, timestamp: int) -> None:
    """Count a packet whose pixels are in place; close the frame when it is the last."""
    frames, scalars = state.frames, state.scalars
    state.masks[row, packet >> 3] |= np.uint8(1 << (packet & 7))
    if frames[row, RECEIVED] == 0:
        frames[row, TIMESTAMP] = timestamp
    frames[row, RECEIVED] += 1
    frames[row, LAST] = scalars[REALTIME]
    scalars[LAST_VALID] = scalars[MONOTONIC]
    scalars[LATE_RUN] = 0
    if frames[row, SLOT] >= 0:
        _measure(plan, state, memory, row, packet)
    if frames[row, RECEIVED] == plan.packets:
        _close(plan, state, memory, masks, row)
        _promote(state)


@inlined
def is_received(state: State, row: int, packet: int) -> bool:
    """Whether the packet is in already."""
    return bool((state.masks[row, packet >> 3] >> (packet & 7)) & 1)


@inner
def was_received(state: State, number: int, packet: int) -> bool:
    """Whether a frame that has been closed lately had the packet: another one is a duplicate rather than late."""
    for row in range(len(state.frames)):
        if state.frames[row, NUMBER] == number and is_received(state, row, packet):
            return True
    return False


@inner
def close_overdue(plan: Plan, state: State, memory: Memory, masks: Masks, drained: int) -> None:
    """Close the frames whose time was over at the monotonic time `drained` [ns], when all sockets had been read."""
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] == OPEN and state.frames[row, OPENED] + plan.timeout_ns <= drained:
            _close(plan, state, memory, masks, row)
    _promote(state)


@compiled
def close_all(plan: Plan, state: State, memory: Memory, masks: Masks) -> None:
    """Close every open frame."""
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] == OPEN:
            _close(plan, state, memory, masks, row)
    _promote(state)


@inner
def _close(plan: Plan, state: State, memory: Memory, masks: Masks, row: int) -> None:
    frames = state.frames
    frames[row, STATUS] = CLOSED
    state.scalars[OPEN_COUNT] -= 1
    slot = frames[row, SLOT]
    if slot < 0:
        return
    for byte in range(state.masks.shape[1]):
        masks[slot, byte] = state.masks[row, byte]
    if frames[row, RECEIVED] == plan.packets:
        return
    for packet in range(plan.packets):
        if not is_received(state, row, packet):
            _fill(plan, memory, slot, packet)


@inner
def _fill(plan: Plan, memory: Memory, slot: int, packet: int) -> None:
    backward = plan.step[packet // plan.stream_packets] < 0
    for segment in range(plan.first[packet], plan.first[packet + 1]):
        count = plan.length[segment]
        begin = slot * plan.slot_pixels + plan.offset[segment] - (count - 1 if backward else 0)
        if plan.item == 1:
            _fill_run(memory.one, begin, count, plan.fill)
        elif plan.item == 2:
            _fill_run(memory.two, begin, count, plan.fill)
        else:
            _fill_run(memory.four, begin, count, plan.fill)


@inner
def _fill_run(pixels: npt.NDArray[Any], begin: int, count: int, value: int) -> None:
    for i in range(np.uint64(begin), np.uint64(begin + count)):
        pixels[i] = value


@inlined
def _measure(plan: Plan, state: State, memory: Memory, row: int, packet: int) -> None:
    """Add a packet to its frame's sum and maximum, while its pixels are still in the cache."""
    backward = plan.step[packet // plan.stream_packets] < 0
    for segment in range(plan.first[packet], plan.first[packet + 1]):
        count = plan.length[segment]
        begin = state.frames[row, SLOT] * plan.slot_pixels + plan.offset[segment] - (count - 1 if backward else 0)
        if plan.item == 1:
            total, highest = _sum_small(memory.one, begin, count, plan.fill)
        elif plan.item == 2:
            total, highest = _sum_small(memory.two, begin, count, plan.fill)
        else:
            total, highest = _sum_large(memory.four, begin, count, plan.fill)
        state.frames[row, TOTAL] += total
        state.frames[row, MAXIMUM] = max(state.frames[row, MAXIMUM], highest)


@inlined
def _sum_small(pixels: npt.NDArray[Any], begin: int, count: int, fill: int) -> tuple[int, int]:
    """Sum and maximum of a run of at most 65536 pixels of one or two bytes, without fill: 32 bits hold the sum."""
    lost = pixels.dtype.type(fill)
    total = np.uint32(0)
    highest = pixels.dtype.type(0)
    for i in range(np.uint64(begin), np.uint64(begin + count)):
        value = pixels[i] if pixels[i] != lost else pixels.dtype.type(0)
        total = np.uint32(total + np.uint32(value))
        highest = max(highest, value)
    return np.int64(total), np.int64(highest)  # type: ignore[return-value]


@inlined
def _sum_large(pixels: npt.NDArray[Any], begin: int, count: int, fill: int) -> tuple[int, int]:
    """Sum and maximum of a run of pixels of four bytes, without fill."""
    lost = pixels.dtype.type(fill)
    total = np.uint64(0)
    highest = pixels.dtype.type(0)
    for i in range(np.uint64(begin), np.uint64(begin + count)):
        value = pixels[i] if pixels[i] != lost else pixels.dtype.type(0)
        total += np.uint64(value)
        highest = max(highest, value)
    return np.int64(total), np.int64(highest)  # type: ignore[return-value]


@inner
def _stalest(state: State) -> int:
    """The free row that was opened longest ago, or −1: the others still know which packets their frames had."""
    found = -1
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] != FREE:
            continue
        if found < 0 or state.frames[row, OPENED] < state.frames[found, OPENED]:
            found = row
    return found


@inner
def _oldest(state: State, status: int) -> int:
    """Row of the frame of lowest number with this status, or −1."""
    found = -1
    for row in range(len(state.frames)):
        if state.frames[row, STATUS] != status:
            continue
        if found < 0 or state.frames[row, NUMBER] < state.frames[found, NUMBER]:
            found = row
    return found


@inner
def _promote(state: State) -> None:
    """Hand closed frames that wait for no older one to the engine, in order."""
    scalars, frames = state.scalars, state.frames
    while True:
        row = _oldest(state, CLOSED)
        waits_for = _oldest(state, OPEN)
        if row < 0 or (waits_for >= 0 and frames[waits_for, NUMBER] < frames[row, NUMBER]):
            return
        frames[row, STATUS] = DONE
        state.done[scalars[DONE_COUNT]] = row
        scalars[DONE_COUNT] += 1
        scalars[FLOOR] = max(scalars[FLOOR], frames[row, NUMBER])


@inner
def place(plan: Plan, state: State, memory: Memory, source: int, slot: int, packet: int) -> None:
    """Copy a payload that lies at byte `source` of ``state.linear`` to where it belongs."""
    stream = packet // plan.stream_packets
    target = slot * plan.slot_pixels
    if plan.direct[stream]:
        address = plan.linear_address + source
        for segment in range(plan.first[packet], plan.first[packet + 1]):
            length = plan.length[segment] * plan.item
            memcpy(plan.pixels_address + (target + plan.offset[segment]) * plan.item, address, length)
            address += length
        return
    taken = 0
    for segment in range(plan.first[packet], plan.first[packet + 1]):
        at = target + plan.offset[segment]
        for _ in range(plan.length[segment]):
            if plan.nibbles:
                memory.one[at] = (state.linear[source + (taken >> 1)] >> (4 * (taken & 1))) & 15
            elif plan.item == 1:
                memory.one[at] = state.linear[source + taken]
            elif plan.item == 2:
                memory.two[at] = state.linear_pixels.two[(source >> 1) + taken]
            else:
                memory.four[at] = state.linear_pixels.four[(source >> 2) + taken]
            at += plan.step[stream]
            taken += 1

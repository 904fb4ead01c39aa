"""One end of a ring in a process of its own, for `test_ring_processes`; tells what happens as JSON lines.

::

    python -m tests.frames.ring_child consumer SOCKET NAME POLICY [hoard]
    python -m tests.frames.ring_child producer SOCKET FRAMES
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from sisockdaq.errors import SisockdaqError
from sisockdaq.frames import (
    Attached,
    Description,
    Detached,
    End,
    FrameHeader,
    Report,
    Settled,
    Start,
    parse_policy,
)
from sisockdaq.frames.ring import RingConsumer, RingProducer

SHAPE = (64, 64)


def tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def consume(socket: str, name: str, policy: str, hoard: bool) -> None:
    """Take frames and check that each is whole; with `hoard`, never release one."""
    consumer = RingConsumer(Path(socket), name, parse_policy(policy))
    taken, torn, invalid, hoarded = 0, 0, 0, []
    tell(ready=os.getpid())
    while os.getppid() != 1:
        match consumer.next(0.5):
            case None:
                pass
            case Attached() as mark:
                tell(attached=mark.epoch)
            case Detached() as mark:
                tell(detached=mark.reason)
            case Start() as mark:
                tell(start=mark.acquisition)
            case End() as mark:
                tell(end=mark.acquisition, taken=taken, torn=torn, invalid=invalid)
                consumer.request(Report(mark.acquisition, {"frames_checked": taken}))
                taken = torn = invalid = 0
            case Settled() as mark:
                tell(settled=mark.ledger)
            case frame:
                if hoard:
                    hoarded.append(frame)
                    tell(hoarded=len(hoarded))
                    continue
                whole = bool((frame.pixels == frame.header.number % 65536).all())
                valid = frame.valid()
                taken += valid
                invalid += not valid
                torn += valid and not whole
                frame.release(used=valid)


def produce(socket: str, frames: int) -> None:
    """Publish frames, then wait to be killed."""
    producer = RingProducer(Path(socket), Description("child", "image", SHAPE, "<u2"), 8)
    tell(ready=os.getpid())
    for number in range(frames):
        slot = producer.acquire()
        if slot is not None:
            producer.pixels[slot] = number
            producer.publish(slot, FrameHeader(number, 0.0, 0.0))
    tell(published=frames)
    sys.stdin.read()


if __name__ == "__main__":
    role, address, *rest = sys.argv[1:]
    try:
        if role == "consumer":
            consume(address, rest[0], rest[1], "hoard" in rest[2:])
        else:
            produce(address, int(rest[0]))
    except SisockdaqError as error:
        tell(error=str(error))

"""Frames between processes of one machine: a ring in shared memory, filled in place, with small notifications.

`RingProducer` and `RingConsumer` are the two ends; the memory, the messages and the policies are described in the
modules they come from.
"""

from sisockdaq.frames._ring_consumer import RingConsumer, RingFrame
from sisockdaq.frames._ring_producer import RingProducer

__all__ = ["RingConsumer", "RingFrame", "RingProducer"]

"""Frames and other channels from bsread senders: one message a pulse.

The messages are read by `sisockdaq.sources.bsread`. One channel with rows and columns becomes the frames, each other
channel a field of this node, sampled at the pulses' times.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sisockdaq.sources.bsread import BsreadFeed
from sisockdaq.sources.events import Feed
from sisockdaq.sources.node import SourceNode
from sisockdaq.sources.pump import PumpSettings

__all__ = ["BsreadReceiver"]


class BsreadReceiver(SourceNode):
    """Frames and channels from bsread senders."""

    class Options(SourceNode.Options):
        """Where the senders are, and which channels are wanted."""

        connect: list[str] = Field(
            min_length=1, description="ZeroMQ addresses of the senders, for example tcp://camera:9999."
        )
        mode: Literal["pull", "sub"] = Field(
            "pull", description="pull: from senders that push; sub: from senders that publish."
        )
        image: str | None = Field(
            None, description="Channel that the frames are taken from. Default: the first with rows and columns."
        )
        channels: list[str] | None = Field(None, description="Other channels that become fields. Default: all.")
        queue: int = Field(100, ge=1, le=100_000, description="Messages kept in memory for each sender.")

    def make_feed(self) -> Feed:
        """Return the senders' feed."""
        options = self.options
        return BsreadFeed(
            options.connect, mode=options.mode, image=options.image, channels=options.channels, queue=options.queue
        )

    def pump_settings(self) -> PumpSettings:
        """Pulses are labels: images are counted as they come."""
        return self.known(consecutive=False)

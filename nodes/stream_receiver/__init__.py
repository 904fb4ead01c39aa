"""Frames from DECTRIS Stream V2 senders: detectors, Jungfraujoch receivers, or another site.

The messages are read by `sisockdaq.sources.stream2`; what is served, and how losses are counted, is the same for all
sources of whole images (`sisockdaq.sources.node`).
"""

from __future__ import annotations

from pydantic import Field

from sisockdaq.sources.events import Feed
from sisockdaq.sources.node import SourceNode
from sisockdaq.sources.pump import PumpSettings
from sisockdaq.sources.stream2 import Stream2Feed

__all__ = ["StreamReceiver"]


class StreamReceiver(SourceNode):
    """Frames from DECTRIS Stream V2 senders."""

    class Options(SourceNode.Options):
        """Where the senders are."""

        connect: list[str] = Field(
            min_length=1,
            description="ZeroMQ addresses of the senders, for example tcp://detector:31001; several where a sender has "
            "several sockets.",
        )
        channel: str | None = Field(
            None, description="Channel (threshold) of the images that is taken. Default: the first of each image."
        )
        queue: int = Field(
            100, ge=1, le=100_000, description="Messages kept in memory for each sender; then senders have to wait."
        )

    def make_feed(self) -> Feed:
        """Return the senders' feed."""
        return Stream2Feed(self.options.connect, channel=self.options.channel, queue=self.options.queue)

    def pump_settings(self) -> PumpSettings:
        """Images are numbered in their series, and may overtake each other."""
        return self.known(ordered=False)

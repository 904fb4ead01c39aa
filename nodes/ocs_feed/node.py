"""Feeds of OCS agents as a node: each field that an agent publishes is a field here, live and for the last hour.

One feed keeps its fields' own names, as sisock's data-feed node had them; with several feeds, or patterns, the names
begin with ``<target>.<feed>.``. Timelines are the feed's blocks. How the node fares is on the timeline ``status``, in
fields named ``ocs_feed.…``; no OCS field has a dot in its name, so these names stay free.

Subscriptions are made at each login, so they are back after a restart of the router.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Literal

from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import EventDetails, SubscribeOptions
from pydantic import Field, field_validator, model_validator
from sisockdaq.nodes.ocs_feed.addresses import (
    FeedAddress,
    Source,
    Subscription,
    chosen,
    part_of_address,
    subscriptions,
)
from sisockdaq.nodes.ocs_feed.cache import COUNTS, FeedCache, Limits, Prefix
from twisted.internet.defer import inlineCallbacks
from twisted.logger import Logger

from sisockdaq.base import DataNodeServer

__all__ = ["STATUS", "OcsFeed"]

DEFAULT_ROOT = "observatory"
"""What the addresses of OCS agents begin with, unless their site says otherwise."""

STATUS_TIMELINE = "status"

STATUS_PERIOD = 1.0
"""Time between two reports [s]."""

STATUS = {
    "sample_rate": "Values kept per second.",
    "dropped": "Messages, blocks and columns that were not kept, for any of the reasons below but free_form.",
    "feeds": "Feeds that something came of.",
    "fields": "Fields made of them.",
    "subscriptions": "Subscriptions that the router has granted.",
    "samples_replaced": "Samples that came again with a time that was there already.",
    **COUNTS,
}
"""Number fields of the timeline ``status``, without their prefix ``ocs_feed.``. Counts are since the start."""


class OcsFeed(DataNodeServer):
    """Live data of OCS agents."""

    class Options(DataNodeServer.Options):
        """Which feeds, and how much of them is kept."""

        target: str | None = Field(
            None,
            description="For one feed: the agent's instance-id.",
            json_schema_extra={"environment": "TARGET"},
        )
        feed: str | None = Field(None, description="For one feed: its name.", json_schema_extra={"environment": "FEED"})
        feeds: list[FeedAddress] = Field(
            [], description="Several feeds, each `{target: …, feed: …}`; both may be patterns such as `LSA*`."
        )
        buffer_time: float = Field(
            3600.0, gt=0, description="Age of the samples that are kept [s].",
            json_schema_extra={"environment": "BUFFER_TIME"},
        )  # fmt: skip
        description: str | None = Field(
            None, description="What people read beside the node's name. Default: that of the type."
        )
        prefix: Literal["auto", "none", "target", "target.feed"] = Field(
            "auto",
            description="What stands before a field's own name: none, target (`LSA22YE.`), target.feed "
            "(`LSA22YE.temperatures.`); auto: none with one feed, else target.feed.",
        )
        address_root: str | None = Field(
            None, description="What all addresses begin with. Default: the site's `router.ocs`, else observatory."
        )
        max_fields: int = Field(
            2000, ge=1, le=100_000, description="Most fields; further names are refused, counted and logged."
        )
        max_feeds: int = Field(
            200, ge=1, le=10_000, description="Most feeds that patterns may find; further ones are refused likewise."
        )
        max_samples: int = Field(
            1_000_000, ge=1, description="Most samples of a field, whatever their age; 200 Hz for an hour is 720,000."
        )

        @field_validator("address_root")
        @classmethod
        def _speakable(cls, value: str | None) -> str | None:
            return value if value is None else part_of_address(value)

        @model_validator(mode="after")
        def _some_feed(self) -> OcsFeed.Options:
            if (self.target is None) != (self.feed is None):
                raise ValueError("target and feed belong together: the one is given without the other")
            if not self.addresses:
                raise ValueError("no feed is given; write feeds: [{target: LSA22YE, feed: temperatures}]")
            return self

        @property
        def addresses(self) -> list[FeedAddress]:
            """All feeds and patterns."""
            one = [FeedAddress(target=self.target, feed=self.feed)] if self.target and self.feed else []
            return [*one, *self.feeds]

        @property
        def naming(self) -> Prefix:
            """What stands before a field's own name."""
            if self.prefix != "auto":
                return self.prefix
            addresses = self.addresses
            return "none" if len(addresses) == 1 and not addresses[0].is_pattern else "target.feed"

    options: Options
    cache: FeedCache
    subscribed: int = 0

    def setup(self) -> None:
        """Make the cache; fields come with their first samples."""
        options = self.options
        self._log = Logger(f"sisockdaq.{self.name}")
        self._root = options.address_root or _root_of(self.site)
        self._wanted = subscriptions(options.addresses, self._root)
        if options.description:
            self.description = options.description
        self.cache = FeedCache(
            partial(self.series, units=None),
            root=self._root,
            prefix=options.naming,
            taken_timelines=(STATUS_TIMELINE,),
            limits=Limits(options.buffer_time, options.max_samples, options.max_fields, options.max_feeds),
            say=lambda text: self._log.warn("{text}", text=text),
        )
        for name, about in STATUS.items():
            units = "Hz" if name == "sample_rate" else None
            self._status = self.series(
                f"ocs_feed.{name}", units=units, description=about, timeline=STATUS_TIMELINE
            ).timeline
        self._reported = (time.monotonic(), 0)
        self.register_control("status", self.status)
        self.every(STATUS_PERIOD, self._report)

    @inlineCallbacks
    def after_onJoin(self, details: Any) -> Any:  # noqa: N802 - sisock's name
        """Subscribe to the feeds."""
        self.subscribed = 0
        for wanted in self._wanted:
            options = SubscribeOptions(match="wildcard" if wanted.wildcard else "exact", details=True)
            try:
                yield self.subscribe(partial(self._arrived, wanted), wanted.uri, options=options)
            except ApplicationError as error:
                self._log.error(
                    "no events of {uri}: {error}   → may this user subscribe? In a site file, set router: {{ocs: …}}",
                    uri=wanted.uri,
                    error=error.error_message(),
                )
            else:
                self.subscribed += 1

    def _arrived(self, subscription: Subscription, /, *arguments: Any, details: EventDetails, **_: Any) -> None:
        source = Source.of_topic(details.topic, self._root)
        if source is not None and chosen(self._wanted, source) is subscription:
            self.cache.take(source, arguments, time.time())

    def status(self) -> dict[str, Any]:
        """Return the counts, and what came of each feed (role control)."""
        return {**self._counts(), "by_feed": self.cache.describe()}

    def _counts(self) -> dict[str, int]:
        return {
            "dropped": self.cache.dropped,
            "feeds": self.cache.feeds,
            "fields": self.cache.fields,
            "subscriptions": self.subscribed,
            "samples_replaced": sum(line.replaced for line in self.store.timelines.values()),
            **self.cache.counts,
        }

    def _report(self) -> None:
        counts: dict[str, float] = {**self._counts()}
        before, samples = self._reported
        self._reported = (time.monotonic(), self.cache.counts["samples"])
        counts["sample_rate"] = (self._reported[1] - samples) / max(self._reported[0] - before, STATUS_PERIOD / 10)
        self._status.append(time.time(), {f"ocs_feed.{name}": value for name, value in counts.items()})


def _root_of(site: Any) -> str:
    """Return the address root that the site gives its OCS agents."""
    ocs = getattr(getattr(site, "router", None), "ocs", None)
    return str(getattr(ocs, "address_root", DEFAULT_ROOT))

"""Which feeds are meant: names and patterns, and the subscriptions that they need.

A feed's address is ``<root>.<target>.feeds.<feed>``. A pattern becomes WAMP's wildcard (an empty component) where it
stands, and what comes is compared with the pattern here. Where subscriptions overlap, an event comes once for each:
only the first one that fits it counts, so that nothing is taken twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["FeedAddress", "Source", "Subscription", "chosen", "part_of_address", "subscriptions"]

_WILD = frozenset("*?[")


def part_of_address(value: str) -> str:
    """Return the text when it can stand in a WAMP address; raise ValueError otherwise."""
    if any(sign.isspace() or sign == "#" for sign in value) or "" in value.split("."):
        raise ValueError(f"{value!r} cannot be part of an address: no blanks, no #, no empty part between dots")
    return value


class FeedAddress(BaseModel):
    """One feed, or all whose names fit a pattern with ``*``, ``?`` and ``[…]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str = Field(min_length=1, description="The agent's instance-id, or a pattern such as `LSA*`.")
    feed: str = Field(min_length=1, description="The feed's name, or a pattern such as `*`.")

    @field_validator("target", "feed")
    @classmethod
    def _speakable(cls, value: str) -> str:
        return part_of_address(value)

    @property
    def is_pattern(self) -> bool:
        """Whether more than one feed may fit."""
        return bool(_WILD & set(self.target + self.feed))

    def fits(self, source: Source) -> bool:
        """Say whether a feed is meant."""
        return _fits(source.target, self.target) and _fits(source.feed, self.feed)


class Source(NamedTuple):
    """A feed as it is: its agent and its name."""

    target: str
    feed: str

    @classmethod
    def of_topic(cls, topic: Any, root: str) -> Source | None:
        """Read an address; None where it is not that of a feed below the root."""
        if not isinstance(topic, str) or not topic.startswith(f"{root}."):
            return None
        target, between, feed = topic[len(root) + 1 :].rpartition(".feeds.")
        return cls(target, feed) if between and target and feed else None

    def topic(self, root: str) -> str:
        """Return the feed's address."""
        return f"{root}.{self.target}.feeds.{self.feed}"


class Subscription(NamedTuple):
    """A subscription to make: the URI, whether it has wildcards, and the feeds that are wanted of it."""

    uri: str
    wildcard: bool
    wanted: tuple[FeedAddress, ...]

    def takes(self, source: Source) -> bool:
        """Say whether a feed is wanted."""
        return any(address.fits(source) for address in self.wanted)


def subscriptions(addresses: Sequence[FeedAddress], root: str) -> list[Subscription]:
    """Return the subscriptions for these feeds, exact ones first; `chosen` tells which one counts for an event."""
    wanted: dict[tuple[bool, str], list[FeedAddress]] = {}
    for address in addresses:
        parts = ["" if _WILD & set(part) else part for part in (address.target, address.feed)]
        uri = f"{root}.{parts[0]}.feeds.{parts[1]}"
        wanted.setdefault((address.is_pattern, uri), []).append(address)
    return [Subscription(uri, wildcard, tuple(wanted[wildcard, uri])) for wildcard, uri in sorted(wanted)]


def chosen(made: Sequence[Subscription], source: Source) -> Subscription | None:
    """Return the subscription whose events of this feed are taken."""
    return next((one for one in made if one.takes(source)), None)


def _fits(name: str, pattern: str) -> bool:
    if not _WILD & set(pattern):
        return name == pattern
    return "." not in name and fnmatchcase(name, pattern)  # WAMP's wildcard stands for one component, too

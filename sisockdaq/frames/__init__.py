"""The frame plane: how pixels travel between processes, with every frame accounted for.

Most users need only this module: `make_consumer` and `make_producer`, which choose the back end by an address, and
the marks and frames that come out of it.

====================================  =======================================================================
address                               what it is
====================================  =======================================================================
``ring:///run/frames-receiver.sock``  shared memory on this machine, at that unix socket; all policies
``stream2://host:31001``              DECTRIS Stream V2 over ZeroMQ: a producer binds and pushes, a consumer pulls
====================================  =======================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sisockdaq.errors import ConfigurationError
from sisockdaq.frames.bus import BorrowedFrame, Consumer, Producer, Request, unreceived
from sisockdaq.frames.ledger import ConsumerPart, Ledger
from sisockdaq.frames.messages import (
    NO_ACQUISITION,
    Arm,
    Attached,
    Description,
    Detached,
    End,
    FrameHeader,
    Mark,
    Policy,
    Report,
    Settled,
    Start,
    Stop,
    parse_policy,
)

__all__ = [
    "NO_ACQUISITION",
    "Arm",
    "Attached",
    "BorrowedFrame",
    "Consumer",
    "ConsumerPart",
    "Description",
    "Detached",
    "End",
    "FrameHeader",
    "Ledger",
    "Mark",
    "Policy",
    "Producer",
    "Report",
    "Request",
    "Settled",
    "Start",
    "Stop",
    "make_consumer",
    "make_producer",
    "parse_policy",
    "unreceived",
]


def make_producer(address: str, description: Description, *, slots: int = 64, **options: Any) -> Producer:
    """Return the producer for an address.

    Parameters
    ----------
    address : str
        ``ring://PATH`` or ``stream2://HOST:PORT``.
    description : Description
    slots : int
        Frames in the pool.
    **options
        Of the back end: `RingProducer` (``hang_after``), `Stream2Producer` (``compression``, ``queue``, ``patience``).

    Raises
    ------
    ConfigurationError
        When the address is none of these.
    FrameSourceError
        When the address is taken.
    """
    kind, place = _split(address)
    if kind == "ring":
        from sisockdaq.frames.ring import RingProducer

        return RingProducer(Path(place), description, slots, **options)
    if kind == "stream2":
        from sisockdaq.frames.stream2_bus import Stream2Producer

        return Stream2Producer(_zeromq(place), description, slots, **options)
    raise _unknown(address)


def make_consumer(address: str, *, name: str, policy: Policy | str = "lossless", **options: Any) -> Consumer:
    """Return the consumer for an address; the source need not be there yet.

    Parameters
    ----------
    address : str
        ``ring://PATH`` or ``stream2://HOST:PORT``.
    name : str
        Who this is, in the source's ledger.
    policy : Policy or str
        Or as in a site file: ``lossless``, ``latest``, ``every: n``.
    **options
        Of the back end: `RingConsumer` (``reports``), `Stream2Consumer` (``reports``, ``queue``, ``unpack``).

    Raises
    ------
    ConfigurationError
        When the address or the policy is none of these.
    """
    kind, place = _split(address)
    try:
        chosen = parse_policy(policy) if isinstance(policy, str) else policy
    except ValueError as error:
        raise ConfigurationError(f"frames for {name}: {error}") from error
    if kind == "ring":
        from sisockdaq.frames.ring import RingConsumer

        return RingConsumer(Path(place), name, chosen, **options)
    if kind == "stream2":
        from sisockdaq.frames.stream2_bus import Stream2Consumer

        return Stream2Consumer(_zeromq(place), name, chosen, **options)
    raise _unknown(address)


def _split(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc + parts.path


def _zeromq(place: str) -> str:
    """Return ZeroMQ's address: a path is a unix socket, anything else a host and port."""
    return f"ipc://{place}" if place.startswith("/") else f"tcp://{place}"


def _unknown(address: str) -> ConfigurationError:
    return ConfigurationError(
        f'"{address}" is not an address of frames', remedy="write ring://PATH or stream2://HOST:PORT"
    )

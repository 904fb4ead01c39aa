"""The public face: addresses, policies, and what bus and messages promise on their own."""

from __future__ import annotations

import numpy as np
import pytest

from sisockdaq.errors import ConfigurationError, FrameSourceError
from sisockdaq.frames import Description, FrameHeader, Policy, make_consumer, make_producer, parse_policy, unreceived

DESCRIPTION = Description("rx", "image", (2, 2), "<u2")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("lossless", Policy("lossless")),
        ("latest", Policy("latest")),
        ("every: 10", Policy("every", 10)),
        ("every 2", Policy("every", 2)),
    ],
)
def test_policies_are_read_as_they_are_written(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize("text", ["", "all", "every: 0", "every: -1", "every", "latest 3"])
def test_other_policies_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one of lossless, latest, every: n"):
        parse_policy(text)
    with pytest.raises(ConfigurationError, match="frames for writer"):
        make_consumer("ring:///tmp/none.sock", name="writer", policy=text)


def test_other_addresses_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not an address of frames"):
        make_consumer("redis://localhost", name="writer")
    with pytest.raises(ConfigurationError, match="not an address of frames"):
        make_producer("frames.sock", DESCRIPTION)


def test_a_socket_path_must_fit_and_its_folder_be_usable() -> None:
    with pytest.raises(FrameSourceError, match="107"):
        make_consumer(f"ring:///tmp/{'x' * 120}.sock", name="writer").next(0.0)
    with pytest.raises(FrameSourceError, match="cannot use the folder"):
        make_producer("ring:///proc/nowhere/frames.sock", DESCRIPTION)


def test_a_ring_that_does_not_fit_the_memory_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("r") / "f.sock"
    huge = Description("rx", "image", (1 << 24, 1 << 24), "<u2")
    with pytest.raises(FrameSourceError, match=r"no memory for a ring"):
        make_producer(f"ring://{path}", huge, slots=4)
    assert not path.exists()


def test_missing_packets_are_told_from_the_mask() -> None:
    assert unreceived(np.array([0b11111101, 0b1], np.uint8), 10).tolist() == [1, 9]


def test_a_frame_is_complete_with_all_its_packets() -> None:
    assert FrameHeader(1, 0.0, 0.0).complete
    assert not FrameHeader(1, 0.0, 0.0, packets_expected=128, packets_received=127).complete

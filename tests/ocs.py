"""Real agents of OCS (package ``ocs``) on a test's network::

    with fake_data_agent(network) as agent:
        network.start(OcsFeed, feeds=[{"target": agent.target, "feed": agent.feed}])

A test that uses one is skipped where the package is not installed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sisockdaq.testing import Network, wait_until

__all__ = ["FakeDataAgent", "fake_data_agent"]

START = 60.0
"""Longest start of an agent that is waited for [s]; importing its package alone takes seconds on a busy machine."""


@dataclass
class FakeDataAgent:
    """A running agent of class FakeDataAgent, and its messages as another subscriber at the OCS port got them.

    Attributes
    ----------
    target, feed : str
        Its instance-id and the feed it publishes on, about once a second.
    channels : tuple of str
        The feed's fields; their block is called ``temps``.
    messages : list
        ``[blocks, feed]`` of each event so far.
    """

    target: str
    channels: tuple[str, ...]
    process: subprocess.Popen[bytes]
    log: Path
    messages: list[Any] = field(default_factory=list)
    feed: str = "false_temperatures"

    @property
    def address(self) -> str:
        """Where the feed is published."""
        return f"observatory.{self.target}.feeds.{self.feed}"

    def samples(self, channel: str) -> tuple[list[float], list[float]]:
        """Return times and values that came for a channel so far."""
        blocks = [block for blocks, _ in list(self.messages) for block in blocks.values()]
        times = [t for block in blocks for t in block["timestamps"]]
        return times, [value for block in blocks for value in block["data"][channel]]

    def wait_for_messages(self, number: int = 1) -> None:
        """Wait until so many messages came."""
        wait_until(
            lambda: len(self.messages) >= number or self.process.poll() is not None, START, f"message {number} of OCS"
        )
        assert self.process.poll() is None, self.log.read_text(errors="replace")


@contextlib.contextmanager
def fake_data_agent(
    network: Network, target: str = "faker-1", *, channels: int = 3, sample_rate: float = 10.0
) -> Iterator[FakeDataAgent]:
    """Run OCS's FakeDataAgent against a network that has a way in for OCS; yield it when its first message came."""
    pytest.importorskip("ocs.agents.fake_data.agent", reason="the package ocs is not installed")
    assert network.plan.ocs is not None, "the network has no way in for OCS"
    with tempfile.TemporaryDirectory(prefix="ocs-") as folder:
        site = Path(folder) / "default.yaml"
        site.write_text(json.dumps(_site_config(network, target)))
        log = Path(folder) / "agent.log"
        options = ["--mode", "acq", "--num-channels", str(channels), "--sample-rate", str(sample_rate)]
        where = ["--site-file", str(site), "--site-host", "here", "--instance-id", target]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ocs.agents.fake_data.agent", *where, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            agent = FakeDataAgent(target, tuple(f"channel_{i:02}" for i in range(channels)), process, log)
            agent.messages = network.ocs_caller().subscribe(agent.address)
            agent.wait_for_messages()
            yield agent
        finally:
            process.kill()
            process.wait()


def _site_config(network: Network, target: str) -> dict[str, Any]:
    """Return a site configuration of OCS; JSON is YAML, too."""
    assert network.plan.ocs is not None
    bridge = f"http://{network.plan.ocs.local_host}:{network.plan.ocs.port}/call"
    hub = {
        "wamp_server": network.plan.ocs_url,
        "wamp_http": bridge,
        "wamp_realm": network.plan.realm,
        "address_root": network.plan.ocs.address_root,
    }
    agent = {"agent-class": "FakeDataAgent", "instance-id": target, "arguments": []}
    return {"hub": hub, "hosts": {"here": {"agent-instances": [agent]}}}

"""A site run for one purpose: on ports that are free, in a state directory of its own, until the block ends.

`./run demo --check` and the benchmarks use it, so that they run beside a site that is up already, and leave nothing
running whatever happens in the block.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sisockdaq.cli.up import READY_DEADLINE, prepared, site_parts
from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.router import free_port
from sisockdaq.site import Site, load_site
from sisockdaq.supervisor import PartStatus, Supervisor

__all__ = ["Trial", "example_site", "free_udp_ports", "private_site", "trial"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A running site."""

    site: Site
    supervisor: Supervisor

    def node(self, kind: str) -> str:
        """Return the name of the site's first node of a type."""
        for name, entry in self.site.nodes.items():
            if entry.type == kind:
                return name
        raise ConfigurationError(f"{self.site.file.name}: no node has the type {kind}")

    def send(self, command: str, *arguments: str, timeout: float) -> dict[str, Any]:
        """Run ``sisockdaq simulate`` or ``replay`` for this site as a process; return what it says it sent."""
        line = [sys.executable, "-m", "sisockdaq.cli", command, *self.site.arguments, "--json", *arguments]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise SisockdaqError(f"{command} did not end within {timeout:.0f} s") from None
        if done.returncode != 0:
            raise SisockdaqError(f"{command}: {done.stderr.strip()}")
        sent: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return sent


def example_site(name: str) -> Path:
    """Return the folder of an example site of this checkout.

    Raises
    ------
    ConfigurationError
        The package is installed without its checkout.
    """
    folder = Path(__file__).parents[2] / "sites" / name
    if not (folder / "site.yml").is_file():
        raise ConfigurationError(
            f"the example site {name} is not here: {folder}", remedy="run from a checkout, or name a site with --site"
        )
    return folder


def private_site(folder: Path, suffix: str, overrides: Sequence[str] = ()) -> Site:
    """Read a site under another name, on ports that were free a moment ago."""
    plain = load_site(folder, overrides=overrides)
    sets = [*overrides, f"site={plain.site}-{suffix}", f"router.port={free_port()}"]
    if plain.router.ocs is not None:
        sets.append(f"router.ocs.port={free_port()}")
    sets += [
        f"gateways.{name}.port={free_port()}"
        for name in plain.gateways
        if "port" in plain.part_class(name).Options.model_fields
    ]
    for name, entry in plain.nodes.items():
        ports = entry.options.get("udp")
        if isinstance(ports, list) and ports:
            free = free_udp_ports(len(ports))
            sets.append(f"nodes.{name}.udp={json.dumps([{'port': port} for port in free])}")
    return load_site(folder, check=None, overrides=sets)


@contextlib.contextmanager
def trial(site: Site, on_change: Callable[[PartStatus], None] | None = None) -> Iterator[Trial]:
    """Start all parts of a site, wait until they are ready, and end them after the block.

    Afterwards clients of this machine do not find the site any more; its data stay.
    """
    with prepared(site):
        try:
            with Supervisor(site_parts(site), site.state.logs, on_change=on_change) as supervisor:
                supervisor.wait_ready(READY_DEADLINE)
                yield Trial(site, supervisor)
        finally:
            site.state.forget_endpoint()


def free_udp_ports(count: int) -> list[int]:
    """Return UDP ports of this machine that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]

"""A sisock site as it was before: its router's configuration, its hub, and how its bridge asks.

Written from the contract of the existing network; nothing of this project answers in it but what a test adds.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WampWebSocketClientFactory
from autobahn.wamp.serializer import CBORSerializer, MsgPackSerializer
from autobahn.wamp.types import ComponentConfig, PublishOptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.internet.ssl import Certificate, CertificateOptions

from sisockdaq._wamp.link import LinkedSession, the_reactor
from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.errors import SisockdaqError
from sisockdaq.router import free_port, router_command
from sisockdaq.router._process import RouterProcess
from sisockdaq.session import Credentials, call_within
from sisockdaq.testing import wait_until

__all__ = ["BASE", "DEADLINE", "SECRETS", "OldCaller", "OldSite"]

REALM, BASE = "test_realm", "org.simonsobservatory"

DEADLINE = 60.0
"""Longest wait [s]; generous, because test machines are busy."""

SECRETS = {"server": "of the old server", "simonsobs": "of the old viewer", "narrow": "of the narrow one"}

RUNNER_LIMIT = 1048576
"""What autobahn's ApplicationRunner, under which the old bridge runs, lets a message have [bytes]."""

ALL = {"call": True, "register": True, "publish": True, "subscribe": True}

HUB = """
import os, sys
from OpenSSL import crypto
from autobahn import wamp
from autobahn.twisted.wamp import ApplicationRunner, ApplicationSession
from twisted.internet._sslverify import OpenSSLCertificateAuthorities
from twisted.internet.defer import inlineCallbacks
from twisted.internet.ssl import CertificateOptions

B = "org.simonsobservatory."


class Hub(ApplicationSession):
    nodes = []

    def onConnect(self):
        self.join(self.config.realm, ["wampcra"], os.environ["WAMP_USER"])

    def onChallenge(self, challenge):
        return wamp.auth.compute_wcs(os.environ["WAMP_SECRET"], challenge.extra["challenge"])

    @inlineCallbacks
    def onJoin(self, details):
        yield self.register(self.add, B + "data_node.add")
        yield self.register(self.subtract, B + "data_node.subtract")
        yield self.register(self.listing, B + "consumer.get_data_node")
        yield self.subscribe(self.left, "wamp.session.on_leave")

    def add(self, name, description, session_id):
        if any(name == node[0] for node in self.nodes):
            return False
        self.nodes.append((name, description, session_id))
        self.publish(B + "consumer.data_node_added", {"name": name, "description": description})
        return True

    def subtract(self, name, session_id):
        for node in [node for node in self.nodes if (node[0], node[2]) == (name, session_id)]:
            self.nodes.remove(node)
            self.publish(B + "consumer.data_node_subtracted", {"name": node[0], "description": node[1]})

    def listing(self):
        return [{"name": name, "description": description} for name, description, _ in self.nodes]

    def left(self, session_id):
        for node in [node for node in self.nodes if node[2] == session_id]:
            self.subtract(node[0], session_id)

    def onDisconnect(self):
        from twisted.internet import reactor
        if reactor.running:
            reactor.stop()


cert = crypto.load_certificate(crypto.FILETYPE_PEM, open(".crossbar/server_cert.pem").read())
options = CertificateOptions(trustRoot=OpenSSLCertificateAuthorities([cert]))
ApplicationRunner(sys.argv[1], "test_realm", ssl=options).run(Hub)
"""


class OldSite:
    """An old site in a folder: ``.crossbar`` and what runs from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.ocs_port = free_port(), free_port()
        (folder / ".crossbar").mkdir(parents=True)
        (folder / "hub.py").write_text(HUB)
        certificate(folder / ".crossbar")
        (folder / ".crossbar" / "config.json").write_text(json.dumps(router_json(self.port, self.ocs_port)))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._callers: list[OldCaller] = []
        self._starts = 0
        self.router = self._router()
        self.start_router()
        self.hub = self.start_hub()

    # Router and hub.

    def start_router(self) -> None:
        """Start the router; return when both its ports take connections."""
        self.router.start()
        wait_until(lambda: accepts(self.port) and accepts(self.ocs_port), DEADLINE, "the old router")

    def start_hub(self) -> subprocess.Popen[bytes]:
        """Start the old hub; return when it answers."""
        self.hub = self.run([sys.executable, "hub.py", f"wss://127.0.0.1:{self.port}/ws"], "hub")
        wait_until(lambda: self.listing() is not None, DEADLINE, "the old hub")
        return self.hub

    def _router(self) -> RouterProcess:
        # crossbar keeps its own files beside the configuration
        command = router_command(self.folder / ".crossbar" / "config.json")
        return RouterProcess(command, self.folder / "router.log", self.folder / "none.sock", ("127.0.0.1", self.port))

    # Processes, as containers run them.

    def environment(self, user: str = "server", **more: str) -> dict[str, str]:
        """Return the variables of a container."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WAMP_", "CROSSBAR_"))}
        return clean | {
            "WAMP_USER": user,
            "WAMP_SECRET": SECRETS[user],
            "CROSSBAR_HOST": "127.0.0.1",
            "CROSSBAR_TLS_PORT": str(self.port),
            "CROSSBAR_OCS_PORT": str(self.ocs_port),
            "PYTHONPATH": str(self.folder),
            "SISOCKDAQ_STATE": str(self.folder / "state"),
            "PYTHONUNBUFFERED": "1",
        } | more  # fmt: skip

    def run(
        self, command: Sequence[str], name: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in the site's folder."""
        self._starts += 1
        with (self.folder / f"{name}-{self._starts}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment or self.environment(), stdout=log, stderr=subprocess.STDOUT
            )
        self._processes.append(process)
        return process

    def join(self, *arguments: str, user: str = "server", **variables: str) -> subprocess.Popen[bytes]:
        """Run ``sisockdaq join``."""
        command = [sys.executable, "-m", "sisockdaq.cli", "join", *arguments]
        return self.run(command, arguments[0], self.environment(user, **variables))

    def log(self, name: str) -> str:
        """Return what the processes of that name have written."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob(f"{name}-*.log")))

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process."""
        process.kill()
        process.wait(10)
        self._processes.remove(process)

    # Asking.

    def caller(self, serializer: Any = None, user: str = "simonsobs") -> OldCaller:
        """Return a new caller as an old program is one."""
        made = OldCaller(self, serializer or MsgPackSerializer(), user)
        self._callers.append(made)
        return made

    def listing(self) -> dict[str, str] | None:
        """Return the listed nodes with their descriptions; None while nobody answers."""
        if not self._callers or not self._callers[0].session.is_attached():
            try:
                self._callers.insert(0, OldCaller(self, CBORSerializer(), "simonsobs"))
            except Exception:  # Twisted and OpenSSL raise many kinds; each means "not there yet".
                return None
        try:
            return {one["name"]: one["description"] for one in self._callers[0].call("consumer.get_data_node")}
        except SisockdaqError:
            return None

    def wait_listed(self, name: str) -> None:
        """Wait until the old hub lists a node."""
        try:
            wait_until(lambda: name in (self.listing() or {}), DEADLINE, f"{name} to be listed")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log('*')}") from None

    def wait_gone(self, name: str) -> None:
        """Wait until the old hub lists a node no more."""

        def gone() -> bool:
            listing = self.listing()
            return listing is not None and name not in listing

        wait_until(gone, DEADLINE, f"{name} to be gone")

    def close(self) -> None:
        """End everything."""
        for caller in self._callers:
            caller.close()
        for process in list(self._processes):
            self.end(process)
        self.router.kill()


class OldCaller:
    """A consumer of old: static user, WebSocket with autobahn's small limits, plain calls."""

    def __init__(self, site: OldSite, serializer: Any, user: str) -> None:
        self.session = LinkedSession(ComponentConfig(REALM), Credentials(user, SECRETS[user]))
        trusted = Certificate.loadPEM((site.folder / ".crossbar" / "server_cert.pem").read_bytes())
        factory = WampWebSocketClientFactory(
            lambda: self.session, url=f"wss://127.0.0.1:{site.port}/ws", serializers=[serializer]
        )
        factory.setProtocolOptions(
            maxFramePayloadSize=RUNNER_LIMIT, maxMessagePayloadSize=RUNNER_LIMIT, failByDrop=True
        )
        factory.noisy = False

        def connect() -> Any:
            options = CertificateOptions(trustRoot=trusted)
            return SSL4ClientEndpoint(the_reactor(), "127.0.0.1", site.port, options).connect(factory)

        in_reactor(connect)
        wait_until(self.session.is_attached, 15, f"login of {user}")

    def call(self, procedure: str, *args: Any, deadline: float = 15.0, **kwargs: Any) -> Any:
        """Call below the base URI."""
        where = f"{BASE}.{procedure}"
        return in_reactor(call_within, self.session, deadline, where, *args, deadline=deadline + 1, **kwargs)

    def publish(self, topic: str, *args: Any) -> None:
        """Publish to a full topic, as an agent of OCS does."""
        in_reactor(self.session.publish, topic, *args, options=PublishOptions(acknowledge=True))

    def close(self) -> None:
        """Leave."""
        if self.session.is_attached():
            in_reactor(self.session.leave)


def router_json(port: int, ocs_port: int) -> dict[str, Any]:
    """Return the configuration of an old site's router.

    The user ``narrow`` stands for sites that let a node do no more than the contract has.
    """
    prefixes = (f"{BASE}.", "observatory.", "wamp.")
    everything = [{"uri": prefix, "match": "prefix", "allow": ALL, "cache": True} for prefix in prefixes]
    narrow = [
        {"uri": f"{BASE}.consumer.narrow.{method}", "match": "exact", "allow": {"register": True}}
        for method in ("get_fields", "get_data")
    ]
    narrow += [
        {"uri": f"{BASE}.data_node.add", "match": "exact", "allow": {"call": True}},
        {"uri": f"{BASE}.consumer.get_data_node", "match": "exact", "allow": {"call": True}},
    ]
    reading = [{"uri": f"{BASE}.consumer.", "match": "prefix", "allow": ALL, "cache": True}]
    roles = {"server": everything, "consumer": reading, "narrow": narrow}
    users = {
        "server": {"secret": SECRETS["server"], "role": "server"},
        "simonsobs": {"secret": SECRETS["simonsobs"], "role": "consumer"},
        "narrow": {"secret": SECRETS["narrow"], "role": "narrow"},
    }
    tls = {"key": "server_key.pem", "certificate": "server_cert.pem"}
    return {
        "version": 2,
        "workers": [
            {
                "type": "router",
                "realms": [
                    {"name": REALM, "roles": [{"name": name, "permissions": entry} for name, entry in roles.items()]}
                ],
                "transports": [
                    {
                        "type": "web",
                        "endpoint": {"type": "tcp", "port": port, "interface": "127.0.0.1", "tls": tls},
                        "paths": {
                            "/": {"type": "static", "directory": "."},
                            "ws": {"type": "websocket", "auth": {"wampcra": {"type": "static", "users": users}}},
                        },
                    },
                    {
                        "type": "websocket",
                        "endpoint": {"type": "tcp", "port": ocs_port, "interface": "127.0.0.1"},
                        "auth": {"anonymous": {"type": "static", "role": "server"}},
                    },
                ],
            }
        ],
    }


def certificate(folder: Path) -> None:
    """Make a certificate as old sites have: self-signed, for the name of some machine, without an address."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daq-machine-of-2019")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + 30 * day)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "server_key.pem").write_bytes(private)
    (folder / "server_cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))


def accepts(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0

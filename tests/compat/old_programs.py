"""Programs as sisock sites have them, run the way their containers run: autobahn alone, nothing of sisockdaq.

Each is the text of a script. `run` gives it the environment of such a container, and the router's certificate in
``.crossbar/server_cert.pem`` under its working directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sisockdaq.testing import Network

__all__ = ["ARCHIVES", "BRIDGE", "FEED", "ONE_NODE", "RunningScript", "run"]

HEAD = '''
import json, os, sys, time
from OpenSSL import crypto
from autobahn import wamp
from autobahn.twisted.component import Component
from autobahn.twisted.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import ComponentConfig
from twisted.internet import reactor
from twisted.internet._sslverify import OpenSSLCertificateAuthorities
from twisted.internet.defer import inlineCallbacks
from twisted.internet.ssl import CertificateOptions

HOST, PORT = os.environ["CROSSBAR_HOST"], int(os.environ["CROSSBAR_TLS_PORT"])
WAMP_URI, OCS_URI = f"wss://{HOST}:{PORT}/ws", f"ws://{HOST}:{os.environ['CROSSBAR_OCS_PORT']}/ws"
REALM, BASE_URI = "test_realm", "org.simonsobservatory"
cert = crypto.load_certificate(crypto.FILETYPE_PEM, open(".crossbar/server_cert.pem").read())
opt = CertificateOptions(trustRoot=OpenSSLCertificateAuthorities([cert]))

def uri(s):
    return BASE_URI + "." + s

def say(**facts):
    os.write(1, (json.dumps(facts) + "\\n").encode())  # printed, it would become a line of the runner's log

class Node(ApplicationSession):
    """The contract's node: two procedures and a three-argument add, once, and no more."""

    name = description = None

    def onConnect(self):
        self.join(self.config.realm, ["wampcra"], os.environ["WAMP_USER"])

    def onChallenge(self, challenge):
        return wamp.auth.compute_wcs(os.environ["WAMP_SECRET"], challenge.extra["challenge"])

    @inlineCallbacks
    def onJoin(self, details):
        for method in (self.get_fields, self.get_data):
            try:
                yield self.register(method, uri("consumer." + self.name + "." + method.__name__))
            except Exception as error:
                say(not_registered=str(error))
        try:
            accepted = yield self.call(uri("data_node.add"), self.name, self.description, details.session)
            say(node=self.name, accepted=accepted)
        except Exception as error:
            say(failed=str(error))
        self.after_onJoin(details)

    def after_onJoin(self, details):
        pass
'''

ARCHIVES = (
    HEAD
    + '''
class Weather(Node):
    """Plain replies; ``false`` for more than its allowance."""

    description = "Archived weather."

    def get_fields(self, start, end):
        fields = {"temperature": {"description": None, "timeline": "apex", "type": "number", "units": "C"},
                  "state": {"description": "open or not", "timeline": "apex", "type": "string", "units": None}}
        return fields, {"apex": {"interval": None, "field": ["temperature", "state"]}}

    def get_data(self, field, start, end, min_stride=None):
        if start == 2:
            return False
        values = {"temperature": [1.5, 2.5], "state": ["open", "shut"]}
        timeline = {"apex": {"t": [10.0, 11.0], "finalized_until": 11.0}}
        return {"data": {f: values.get(f, []) for f in field}, "timeline": timeline if set(field) & set(values) else {}}

class Scanner(Node):
    """Replies of so3g's archive scanner: ``fields``, ``group0``."""

    description = "Housekeeping."

    def get_fields(self, start, end):
        name = "observatory.LSA22YE.feeds.temperatures.Channel 07 R"
        fields = {name: {"description": None, "timeline": "group0", "type": "number", "units": None}}
        return fields, {"group0": {"interval": None, "fields": [name]}}

    def get_data(self, field, start, end, min_stride=None):
        return {"data": {f: [7.0, 8.0] for f in field},
                "timeline": {"group0": {"t": [10.0, 11.0], "finalized_until": 11.0, "fields": list(field)}}}

NODES = [("json", JsonSerializer), ("msgpack", MsgPackSerializer), ("cbor", CBORSerializer)]
for kind, serializer in NODES:
    for base in (Weather, Scanner):
        made = type(base.__name__, (base,), {"name": base.__name__.lower() + "_" + kind})
        ApplicationRunner(WAMP_URI, REALM, ssl=opt, serializers=[serializer()]).run(made, start_reactor=False)
reactor.run()
'''
)
"""Six nodes: ``weather_`` and ``scanner_`` with each of ``json``, ``msgpack`` and ``cbor``."""

ONE_NODE = (
    HEAD
    + """
class Weather(Node):
    name, description = "weather", "Archived."

    def get_fields(self, start, end):
        fields = {"temperature": {"description": None, "timeline": "l", "type": "number", "units": "C"}}
        return fields, {"l": {"interval": 1.0, "field": ["temperature"]}}

    def get_data(self, field, start, end, min_stride=None):
        return {"data": {"temperature": [7.0]}, "timeline": {"l": {"t": [10.0], "finalized_until": 10.0}}}

ApplicationRunner(WAMP_URI, REALM, ssl=opt).run(Weather)
"""
)
"""A node called ``weather``."""

FEED = (
    HEAD
    + '''
class Feed(Node):
    """Lives at the plain port, where nobody logs in, and hears an agent's feed."""

    name, description = "old_feed", "Feed of an agent."
    data = {}

    def onConnect(self):
        self.join(self.config.realm)

    @inlineCallbacks
    def after_onJoin(self, details):
        yield self.subscribe(self.cache, "observatory.LSA22YE.feeds.temperatures")
        say(subscribed=True)

    def cache(self, message):
        blocks, feed = message
        for block in blocks.values():
            for channel, values in block["data"].items():
                kept = self.data.setdefault(channel, {"t": [], "v": []})
                kept["t"] += block["timestamps"]
                kept["v"] += values

    def get_fields(self, start, end):
        fields = {c: {"description": None, "timeline": c, "type": "number", "units": None} for c in self.data}
        return fields, {c: {"interval": None, "field": [c]} for c in self.data}

    def get_data(self, field, start, end, min_stride=None):
        known = [f for f in field if f in self.data]
        return {"data": {f: self.data[f]["v"] for f in known},
                "timeline": {f: {"t": self.data[f]["t"], "finalized_until": None} for f in known}}

ApplicationRunner(OCS_URI, REALM).run(Feed(ComponentConfig(REALM, {})))
'''
)
"""A data-feed node of the oldest sites."""

BRIDGE = (
    HEAD
    + '''
endpoint = {"type": "tcp", "host": HOST, "port": PORT, "tls": opt}
component = Component(
    transports=[
        {"type": "websocket", "url": WAMP_URI, "endpoint": endpoint, "serializers": [os.environ["SERIALIZER"]]}
    ],
    authentication={"wampcra": {"authid": os.environ["WAMP_USER"], "secret": os.environ["WAMP_SECRET"]}},
    realm=REALM,
)

@component.on_join
@inlineCallbacks
def joined(session, details):
    """What the HTTP bridge does at its start, and at a query."""
    @inlineCallbacks
    def read(name):
        node = uri("consumer." + name)
        fields, timelines = yield session.call(node + ".get_fields", 1, 0)
        data = yield session.call(node + ".get_data", list(fields), 1, 0)
        later = yield session.call(node + ".get_data", list(fields), 1.5, time.time(), min_stride=20.0)
        say(read=name, fields=fields, timelines=timelines, data=data, same=sorted(later["data"]))

    yield session.subscribe(lambda node: read(node["name"]), uri("consumer.data_node_added"))
    yield session.subscribe(lambda node: say(gone=node), uri("consumer.data_node_subtracted"))
    found = yield session.call(uri("consumer.get_data_node"))
    for node in found:
        yield read(node["name"])
    say(found=found)

component.start(reactor)
reactor.run()
'''
)
"""A consumer that does at WAMP what the old HTTP bridge and the old page do; serializer from the environment."""


class RunningScript:
    """A script in a process of its own, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    def said(self, key: str) -> list[dict[str, object]]:
        """Return what it said (`say` in the script) with that key."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if key in line]


@contextmanager
def run(network: Network, folder: Path, text: str, *, user: str = "server", **more: str) -> Iterator[RunningScript]:
    """Run a script as an old container does."""
    (folder / ".crossbar").mkdir(parents=True)
    (folder / ".crossbar" / "server_cert.pem").write_bytes((network.state.tls / "server_cert.pem").read_bytes())
    (folder / "program.py").write_text(text)
    environment = {
        **os.environ,
        "WAMP_USER": user,
        "WAMP_SECRET": network.state.secret(user),
        "CROSSBAR_HOST": "127.0.0.1",
        "CROSSBAR_TLS_PORT": str(network.plan.port),
        "CROSSBAR_OCS_PORT": str(network.plan.ocs.port if network.plan.ocs else 0),
        **more,
    }
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "program.py"], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield RunningScript(process, folder / "log")
    finally:
        process.kill()
        process.wait(10)

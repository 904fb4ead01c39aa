"""Nodes as sisock sites write them, run by autobahn's ApplicationRunner over the TLS WebSocket."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sisockdaq.testing import Network, wait_until
from sisockdaq.testing.network import SHARED_USER

RUN = """
from OpenSSL import crypto
from twisted.internet._sslverify import OpenSSLCertificateAuthorities
from twisted.internet.ssl import CertificateOptions
from autobahn.twisted.wamp import ApplicationRunner

cert = crypto.load_certificate(crypto.FILETYPE_PEM, open(".crossbar/server_cert.pem").read())
opt = CertificateOptions(trustRoot=OpenSSLCertificateAuthorities([cert]))
runner = ApplicationRunner(WAMP_URI, REALM, ssl=opt)
"""

AFTER_CHANGING_THE_IMPORT = """
import time
from sisockdaq import base as sisock_base
from sisockdaq.base import WAMP_URI, REALM
from autobahn.wamp.types import ComponentConfig

class weather(sisock_base.DataNodeServer):
    name = "old_weather"
    description = "Archived weather."

    def after_onJoin(self, details):
        print("after_onJoin", details.session, flush=True)

    def get_fields(self, start, end):
        start = sisock_base.sisock_to_unix_time(start)
        return {"t": {"description": None, "timeline": "l", "type": "number", "units": "C"}}, {
            "l": {"interval": 1.0, "field": ["t"]}}

    def get_data(self, field, start, end, min_stride=None):
        return {"data": {"t": [1.0, 2.0]}, "timeline": {"l": {"t": [10.0, 11.0], "finalized_until": 11.0}}}
"""

OF_THE_OLD_BASE = """
import os
from autobahn import wamp
from autobahn.twisted.wamp import ApplicationSession
from twisted.internet.defer import inlineCallbacks
WAMP_URI, REALM = os.environ["OLD_URI"], "sisockdaq"

class weather(ApplicationSession):
    def onConnect(self):
        self.join(self.config.realm, ["wampcra"], os.environ["WAMP_USER"])

    def onChallenge(self, challenge):
        return wamp.auth.compute_wcs(os.environ["WAMP_SECRET"], challenge.extra["challenge"])

    @inlineCallbacks
    def onJoin(self, details):
        prefix = "sisockdaq.consumer.old_weather."
        yield self.register(lambda start, end: [{}, {}], prefix + "get_fields")
        yield self.register(lambda f, s, e, min_stride=None: {"data": {}, "timeline": {}}, prefix + "get_data")
        accepted = yield self.call("sisockdaq.data_node.add", "old_weather", "Archived weather.", details.session)
        print("accepted", accepted, flush=True)
"""


@contextmanager
def script(network: Network, folder: Path, text: str, *, secret: str | None = None) -> Iterator[Path]:
    """Run a script as an old container does: environment, certificate in ``.crossbar``; yield its log."""
    (folder / ".crossbar").mkdir()
    (folder / ".crossbar" / "server_cert.pem").write_bytes((network.state.tls / "server_cert.pem").read_bytes())
    (folder / "node.py").write_text(textwrap.dedent(text))
    log = folder / "log"
    environment = {
        **os.environ,
        "WAMP_USER": SHARED_USER,
        "WAMP_SECRET": secret or network.state.secret(SHARED_USER),
        "CROSSBAR_HOST": "127.0.0.1",
        "CROSSBAR_TLS_PORT": str(network.plan.port),
        "OLD_URI": network.plan.url,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "node.py"], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield log
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("start", ["runner.run(weather)", "runner.run(weather(ComponentConfig(REALM, {})))"])
def test_a_subclass_runs_after_changing_its_import(network: Network, tmp_path: Path, start: str) -> None:
    with script(network, tmp_path, AFTER_CHANGING_THE_IMPORT + RUN + start) as log:
        network.wait_listed("old_weather")
        wait_until(lambda: "after_onJoin" in log.read_text(), what="the hook after_onJoin")
        reply = network.call("consumer.old_weather.get_data", ["t"], 1, 0)
        assert reply["data"] == {"t": [1.0, 2.0]}
        assert network.call("consumer.old_weather.get_fields", -60, 0)[1] == {"l": {"interval": 1.0, "field": ["t"]}}
    network.wait_gone("old_weather")


def test_a_node_of_the_old_base_joins_and_is_found_after_a_restart_of_the_hub(network: Network, tmp_path: Path) -> None:
    with script(network, tmp_path, OF_THE_OLD_BASE + RUN + "runner.run(weather)") as log:
        network.wait_listed("old_weather")
        wait_until(lambda: "accepted True" in log.read_text(), what="the hub's answer")
        network.stop_hub()
        network.start_hub()
        # It hears of no restart; the hub finds its procedures and remembers what it is.
        network.wait_listed("old_weather", 10.0)
        assert {"name": "old_weather", "description": "Archived weather."} in network.call("consumer.get_data_node")
        assert network.call("consumer.old_weather.get_data", ["t"], 1, 0) == {"data": {}, "timeline": {}}
    network.wait_gone("old_weather")


def test_a_wrong_secret_is_in_the_log(network: Network, tmp_path: Path) -> None:
    text = AFTER_CHANGING_THE_IMPORT + RUN + "runner.run(weather)"
    with script(network, tmp_path, text, secret="wrong") as log:
        wait_until(lambda: "signature is invalid" in log.read_text(), what="the router's reason")
        assert "wrong" not in log.read_text()

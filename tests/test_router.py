"""The router: its configuration, and on a running one, each right that somebody must not have."""

from __future__ import annotations

import json
import re
import socket
import ssl
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from sisockdaq.errors import ConfigurationError, ConnectionFailed, DeadlineExceeded, NotAuthorized, PortTaken
from sisockdaq.router import RouterPlan, free_port, router_command, router_config, write_router_config
from sisockdaq.router._certificate import ensure_certificate
from sisockdaq.router._process import RouterProcess, require_free_port, router_environment
from sisockdaq.state import StateDirectory
from sisockdaq.testing import Caller, Network, wait_until

PLAN = RouterPlan("trial", realm="other_realm", base_uri="org.example", nodes=("camera", "LSA22-YE"), port=9000)


def config_of(plan: RouterPlan) -> dict:
    return router_config(
        plan,
        secret=lambda user: f"secret of {user}",
        socket=Path("/run/r.sock"),
        certificate=Path("c"),
        key=Path("k"),
        web=Path("w"),
    )


# The configuration.


def test_every_transport_asks_for_a_secret_and_has_limits() -> None:
    worker = config_of(PLAN)["workers"][0]
    local, web = worker["transports"]
    websocket = web["paths"]["ws"]
    for transport in (local, websocket):
        assert set(transport["auth"]) == {"wampcra"}
        assert transport["options"]["max_message_size"] == 16 * 2**20
    assert websocket["options"]["auto_ping_interval"] == 2000
    assert websocket["options"]["auto_ping_timeout"] == 5000
    assert web["endpoint"] | {"tls": None} == {"type": "tcp", "interface": "127.0.0.1", "port": 9000, "tls": None}
    assert local["endpoint"] == {"type": "unix", "path": "/run/r.sock"}


def test_each_user_has_the_role_that_is_its_own() -> None:
    worker = config_of(PLAN)["workers"][0]
    users = worker["transports"][0]["auth"]["wampcra"]["users"]
    assert {user: entry["role"] for user, entry in users.items()} == {
        "camera": "node_camera",
        "LSA22-YE": "node_LSA22-YE",
        "hub": "hub",
        "consumer": "consumer",
        "control": "control",
    }
    assert users["camera"]["secret"] == "secret of camera"
    roles = [role["name"] for role in worker["realms"][0]["roles"]]
    assert sorted(roles) == sorted({entry["role"] for entry in users.values()})
    assert "server" not in roles  # the shared user of old sites is there only when asked for


def test_names_of_the_site_are_filled_in_everywhere() -> None:
    text = json.dumps(config_of(PLAN))
    assert not re.search(r"\{(base|realm|node|host|socket|certificate|key)\}", text)
    assert "org.example.consumer.LSA22-YE." in text
    assert "sisockdaq." not in text


def test_what_the_router_leaves_out_can_be_imported_and_decides_nothing() -> None:
    """Its client for Ethereum takes most of its start; nothing of it may ever pass for a yes or a no."""
    program = """
import sys
from eth_keyfile.keyfile import decode_keyfile_json
from web3 import Web3
assert hasattr(Web3, "to_checksum_address")
assert "py_ecc" not in sys.modules
try:
    print("yes" if Web3.is_address("0x") else "no")
except NotImplementedError as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", program], env=router_environment(), capture_output=True, text=True, check=False
    )
    assert said.stdout.startswith("web3.Web3.is_address.answer is left out of this router: see "), said.stderr


def test_crossbar_accepts_the_configuration(tmp_path: Path) -> None:
    config = write_router_config(PLAN, StateDirectory(tmp_path / "state"))
    crossbar = router_command(config)[0]
    command = [crossbar, "check", "--cbdir", str(config.parent), "--config", config.name]
    checked = subprocess.run(command, env=router_environment(), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_secret_is_for_the_owner_only(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    config = write_router_config(PLAN, state)
    for path in (config, state.path / "secrets.json", state.tls / "server_key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = json.loads((state.path / "secrets.json").read_text())
    assert len({first[user] for user in PLAN.users()}) == len(PLAN.users())
    assert min(map(len, first.values())) >= 40
    write_router_config(PLAN, state)
    assert json.loads((state.path / "secrets.json").read_text()) == first  # made once


def test_the_endpoint_is_left_for_clients(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    write_router_config(PLAN, state)
    stored = state.read_endpoint()
    assert stored["url"] == "wss://127.0.0.1:9000/ws"
    assert (stored["realm"], stored["base_uri"]) == ("other_realm", "org.example")


# The certificate.


def test_the_certificate_is_kept_until_it_lacks_a_name(tmp_path: Path) -> None:
    certificate, key = ensure_certificate(tmp_path, ["127.0.0.1"])
    first = certificate.read_bytes()
    assert ensure_certificate(tmp_path)[0].read_bytes() == first
    ensure_certificate(tmp_path, ["daq.example.org", "10.1.2.3"])
    assert certificate.read_bytes() != first
    names = (
        x509.load_pem_x509_certificate(certificate.read_bytes())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert "daq.example.org" in names.get_values_for_type(x509.DNSName)
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.1.2.3"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)  # they belong together


def test_a_broken_certificate_is_made_anew(tmp_path: Path) -> None:
    certificate, _ = ensure_certificate(tmp_path)
    certificate.write_text("nonsense")
    ensure_certificate(tmp_path)
    x509.load_pem_x509_certificate(certificate.read_bytes())


# Starting.


def test_a_taken_port_is_named_with_its_holder() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}.*in use; held by .*python"):
            require_free_port("127.0.0.1", port, "the router")


def process(tmp_path: Path, code: str) -> RouterProcess:
    return RouterProcess(
        [sys.executable, "-c", code], tmp_path / "log", tmp_path / "r.sock", [("127.0.0.1", free_port())]
    )


def test_a_router_that_dies_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    router = process(tmp_path, "import sys; sys.exit('no such option')")
    router.start()
    with pytest.raises(ConnectionFailed, match="no such option"):
        router.wait_until_ready(10.0)


def test_a_router_that_does_not_come_up_is_killed(tmp_path: Path) -> None:
    router = process(tmp_path, "import signal; signal.pause()")
    router.start()
    with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
        router.wait_until_ready(0.3)
    assert not router.running()


def test_a_second_router_on_the_same_state_is_refused(network: Network) -> None:
    second = RouterProcess(["true"], network.state.logs / "second.log", network.state.router_socket, [("127.0.0.1", 1)])
    with pytest.raises(PortTaken, match="another router listens"):
        second.start()


def test_crossbar_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"pip install 'sisockdaq\[router\]'"):
        router_command(tmp_path / "config.json")


def test_the_health_path_answers_over_tls(network: Network) -> None:
    context = ssl.create_default_context(cafile=str(network.state.tls / "server_cert.pem"))
    url = f"https://127.0.0.1:{network.plan.port}/"
    with urllib.request.urlopen(url + "health", context=context, timeout=10) as reply:
        assert json.load(reply) == {"router": "up", "realm": network.plan.realm}
    with urllib.request.urlopen(url, context=context, timeout=10) as reply:
        assert "The router of the site <b>test</b> is up" in reply.read().decode()


# Rights: what each role must be refused.

REGISTER = [
    ("camera", "consumer.gauge.get_data"),
    ("camera", "consumer.camera2.get_data"),  # a name that begins with its own
    ("camera", "consumer.camera"),
    ("camera", "control.gauge.start"),
    ("consumer", "consumer.camera.get_data"),
    ("consumer", "control.camera.start"),
    ("control", "consumer.camera.get_data"),
    ("control", "control.camera.start"),
    ("hub", "consumer.camera.get_data"),
    ("hub", "control.camera.start"),
]

CALL = [
    ("consumer", "control.camera.start"),
    ("consumer", "data_node.add"),
    ("control", "data_node.add"),
    ("camera", "control.gauge.start"),
    ("camera", "control.camera.start"),
    ("server", "control.camera.start"),
    ("hub", "control.camera.start"),
]

META = ["wamp.session.kill", "wamp.session.list", "wamp.registration.list", "wamp.registration.remove_callee"]

PUBLISH = [
    ("camera", "consumer.gauge.feed.frame"),
    ("camera", "consumer.camera.feedback"),
    ("camera", "consumer.data_node_added"),
    ("camera", "data_node.hub_started"),
    ("server", "consumer.data_node_added"),
    ("consumer", "consumer.camera.feed.frame"),
    ("consumer", "consumer.data_node_added"),
    ("control", "consumer.camera.feed.frame"),
    ("control", "consumer.data_node_subtracted"),
    ("hub", "consumer.camera.feed.frame"),
]

SUBSCRIBE = [
    ("consumer", "control.camera.state"),
    ("consumer", "data_node.hub_started"),
    ("control", "data_node.hub_started"),
    ("camera", "control.gauge.state"),
]


@pytest.fixture
def as_user(network: Network) -> Iterator:
    callers: dict[str, Caller] = {}

    def caller(user: str) -> Caller:
        if user not in callers:
            callers[user] = Caller(network.endpoint, network.credentials(user))
        return callers[user]

    yield caller
    for one in callers.values():
        one.close()


@pytest.mark.parametrize(("user", "procedure"), REGISTER)
def test_registering_is_refused(network: Network, as_user, user: str, procedure: str) -> None:
    with pytest.raises(NotAuthorized):
        as_user(user).register(network.uri(procedure), lambda: None)


def test_nobody_takes_the_hub_s_place_while_it_is_away(network: Network, as_user) -> None:
    network.stop_hub()
    try:
        for user in ("camera", "consumer", "control", "server"):
            for procedure in ("data_node.add", "data_node.subtract"):
                with pytest.raises(NotAuthorized):
                    as_user(user).register(network.uri(procedure), lambda: None)
        for user in ("camera", "consumer", "control", "server"):
            for procedure in ("consumer.get_data_node", "consumer.get_status"):
                with pytest.raises(NotAuthorized):
                    as_user(user).register(network.uri(procedure), lambda: None)
    finally:
        network.start_hub()


@pytest.mark.parametrize(("user", "procedure"), CALL)
def test_calling_is_refused(network: Network, as_user, user: str, procedure: str) -> None:
    with pytest.raises(NotAuthorized):
        as_user(user).call(network.uri(procedure))


@pytest.mark.parametrize("user", ["camera", "server", "consumer", "control"])
def test_the_meta_api_is_the_hub_s(network: Network, as_user, user: str) -> None:
    for procedure in META:
        with pytest.raises(NotAuthorized):
            as_user(user).call(procedure)


@pytest.mark.parametrize(("user", "topic"), PUBLISH)
def test_publishing_is_refused(network: Network, as_user, user: str, topic: str) -> None:
    with pytest.raises(NotAuthorized):
        as_user(user).publish(network.uri(topic), {})


@pytest.mark.parametrize(("user", "topic"), SUBSCRIBE)
def test_subscribing_is_refused(network: Network, as_user, user: str, topic: str) -> None:
    with pytest.raises(NotAuthorized):
        as_user(user).subscribe(network.uri(topic))


def test_patterns_do_not_widen_a_node_s_rights(network: Network, as_user) -> None:
    from autobahn.wamp.types import RegisterOptions

    camera = as_user("camera")
    for match, procedure in [("prefix", "consumer"), ("prefix", "consumer.cam"), ("wildcard", "consumer..get_data")]:
        with pytest.raises(NotAuthorized):
            camera._request(
                camera.session.register,
                lambda *_: None,
                network.uri(procedure),
                options=RegisterOptions(match=match),
            )


def test_what_each_role_may_do(network: Network, as_user) -> None:
    camera, control, consumer = as_user("camera"), as_user("control"), as_user("consumer")
    camera.register(network.uri("consumer.camera.get_data"), lambda: [1])
    camera.register(network.uri("control.camera.start"), lambda: "started")
    for user in ("consumer", "control", "gauge", "server", "hub"):
        assert as_user(user).call(network.uri("consumer.camera.get_data")) == [1]
    assert control.call(network.uri("control.camera.start")) == "started"
    heard = consumer.subscribe(network.uri("consumer.camera.feed.frame"))
    camera.publish(network.uri("consumer.camera.feed.frame"), {"n": 1})
    assert wait_until(lambda: heard, what="the feed's event") == [{"n": 1}]

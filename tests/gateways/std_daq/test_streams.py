"""The Redis streams, with a real redis-server; and that all goes on without one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sisockdaq.gateways.std_daq.redis_server import RedisServer
from sisockdaq.gateways.std_daq.streams import Streams

from sisockdaq.router import free_port
from sisockdaq.state import StateDirectory
from sisockdaq.testing import Network, wait_until
from tests.gateways.std_daq.rig import Rig, rig

PROGRAM = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")

REQUEST: dict[str, Any] = {"output_file": "/data/run.h5", "n_images": 3, "run_id": 17}


class Server:
    """A redis-server of the test's own, on one port, that dies and comes back."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> redis.Redis:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder))
        self._process = subprocess.Popen([str(PROGRAM), *options], stdout=subprocess.DEVNULL)
        server = redis.Redis(port=self.port)
        wait_until(lambda: answers(server), 10, "redis-server")
        return server

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def values(server: redis.Redis, stream: str) -> list[Any]:
    return [json.loads(fields[b"json"]) for _, fields in server.xrange(stream)]


def state(rig: Rig) -> dict[str, Any]:
    return dict(rig.http.get("/writer/status")["streams"])


def test_everything_that_happens_is_in_its_stream(network: Network, server: Server) -> None:
    reader = server.start()
    with rig(network, redis=server.url) as std_daq:
        whole = std_daq.http.get("/daq/config")
        wait_until(lambda: reader.xlen("daq:config") == 1, 10, "the configuration")
        assert values(reader, "daq:config") == [whole["config"]]
        assert reader.xrange("daq:config")[0][0].decode() == whole["config_id"]
        changed = std_daq.http.post("/daq/config", {"bit_depth": 32})
        wait_until(lambda: reader.xlen("daq:config") == 2, 10, "the change")
        assert reader.xrevrange("daq:config", count=1)[0][0].decode() == changed["config_id"]

        wait_until(lambda: reader.xlen("daq:status") >= 1, 10, "a status")
        std_daq.client.start_writer_async(REQUEST)
        wait_until(lambda: values(reader, "daq:status")[-1]["state"] == "WRITING", 10, "the start")
        std_daq.writer.write(3)
        std_daq.writer.end()
        wait_until(lambda: reader.xlen("daq:log") == 1, 10, "the log")
        assert values(reader, "daq:log") == std_daq.client.get_logs(1)
        assert values(reader, "daq:status")[-1] == std_daq.client.get_status()
        assert values(reader, "daq:writer_status") == values(reader, "daq:status")
        wait_until(lambda: reader.xlen("daq:stat") >= 2, 10, "rates")
        assert set(values(reader, "daq:stat")[-1]) == {"detector", "writer"}
        assert state(std_daq)["state"] == "up"


def test_the_status_comes_once_a_second_when_nothing_happens(network: Network, server: Server) -> None:
    reader = server.start()
    with rig(network, redis=server.url):
        wait_until(lambda: reader.xlen("daq:status") >= 3, 10, "three of them")


def test_a_client_of_the_documentation_reads_a_redis_of_our_own_and_may_not_write(network: Network) -> None:
    port = free_port()
    with rig(network, redis={"start": True, "port": port}) as std_daq:
        anybody = redis.Redis(port=port)
        wait_until(lambda: state(std_daq)["state"] == "up", 15, "redis-server")
        wait_until(lambda: anybody.xlen("daq:config") == 1, 10, "the configuration")
        response = anybody.xread({"daq:writer_status": "$"}, block=5000)
        stream, ((_, fields),) = response[0] if isinstance(response, list) else next(iter(response.items()))
        assert stream == b"daq:writer_status"
        assert json.loads(fields[b"json"])["state"] == "READY"
        for forbidden in (
            lambda: anybody.xadd("daq:status", {"json": "{}"}),
            lambda: anybody.get("secret"),
            anybody.flushall,
            lambda: anybody.config_get("*"),
            anybody.shutdown,
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()
        own = std_daq.gateway._redis
        assert own is not None
        killed = own.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: own.pid not in (None, killed) and state(std_daq)["state"] == "up", 15, "it to be back")
        wait_until(lambda: answers(anybody) and anybody.xlen("daq:config") == 1, 15, "the configuration again")
    assert not answers(anybody)


def test_a_redis_that_is_back_before_anybody_noticed_is_told_again(server: Server) -> None:
    reader = server.start()
    streams = Streams(server.url, shown="redis")
    try:
        streams.publish("daq:config", {"a": 1}, keep=1000, message_id="5-0")
        wait_until(lambda: streams.status()["published"] == 1, 10, "the configuration")
        server.kill()
        reader = server.start()
        streams.publish("daq:stat", 1, keep=1000)
        wait_until(lambda: reader.xlen("daq:config") == 1, 10, "the configuration again")
        assert values(reader, "daq:stat") == [1]
    finally:
        streams.close()


def test_redis_may_come_late_die_and_come_back(server: Server) -> None:
    streams = Streams(server.url, shown="redis", buffer=10)
    try:
        for number in range(25):
            streams.publish("daq:stat", number, keep=1000)
        streams.publish("daq:config", {"a": 1}, keep=1000, message_id="5-0")
        wait_until(lambda: "cannot be reached" in streams.status()["message"], 5, "it to notice")
        away = streams.status()
        assert (away["state"], away["waiting"], away["dropped"]) == ("away", 10, 16)

        reader = server.start()
        wait_until(lambda: streams.status()["published"] == 10, 10, "what waited")
        assert values(reader, "daq:stat") == list(range(16, 25))
        server.kill()
        wait_until(lambda: streams.status()["state"] == "away", 10, "it to notice")
        streams.publish("daq:stat", "meanwhile", keep=1000)
        reader = server.start()
        wait_until(lambda: reader.xlen("daq:stat") == 1, 10, "what came meanwhile")
        assert reader.xrange("daq:config") == [(b"5-0", {b"json": b'{"a":1}'})]  # the newest word is said again
        assert streams.status()["state"] == "up"
    finally:
        streams.close()


def test_streams_are_bounded(server: Server) -> None:
    reader = server.start()
    streams = Streams(server.url, buffer=5000)
    for number in range(3000):
        streams.publish("daq:stat", number, keep=100)
    wait_until(lambda: streams.status()["published"] == 3000, 20, "all of them")
    streams.close()
    assert 100 <= reader.xlen("daq:stat") <= 300  # about: Redis cuts whole nodes of its tree
    assert values(reader, "daq:stat")[-1] == 2999


def test_without_redis_all_works_and_says_so(network: Network) -> None:
    with rig(network) as std_daq:
        assert std_daq.client.start_writer_async(REQUEST)["state"] == "WRITING"
        assert state(std_daq)["state"] == "off"
        assert "no Redis" in state(std_daq)["message"]


def test_a_redis_that_is_away_stops_nothing(network: Network, server: Server) -> None:
    with rig(network, redis=server.url) as std_daq:
        assert std_daq.client.start_writer_async(REQUEST)["state"] == "WRITING"
        assert std_daq.client.stop_writer()["state"] == "READY"
        assert state(std_daq)["state"] == "away"


def test_the_secret_is_neither_shown_nor_in_the_process_list(tmp_path: Path) -> None:
    folder = StateDirectory(tmp_path / "state")
    server = RedisServer(folder, 0, 2**20)
    server.look()
    try:
        secret = folder.secret("redis")
        assert server.pid is not None
        assert secret not in server.shown
        assert secret.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    finally:
        server.stop()

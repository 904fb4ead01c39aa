"""A gateway on the network of the tests, before a writer and a receiver that do what a test tells them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sisockdaq.gateways.std_daq import StdDaq
from std_daq_client import StdDaqClient

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import AcquisitionRefused, ConfigurationError
from sisockdaq.gateway import GatewayHost
from sisockdaq.session import Credentials
from sisockdaq.testing import Network, wait_until
from tests.gateways.grafana.rig import Reader


class FakeWriter(DataNodeServer):
    """A file writer without files: images are in it when a test says so."""

    def setup(self) -> None:
        self.lock = threading.Lock()
        self.busy = self.at_once = False
        self.record: dict[str, Any] = {}
        self.ended: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.user: int | None = None
        for name in ("start", "stop", "status", "log", "get_config", "set_config"):
            self.register_control(name, getattr(self, f"{name}_it"), in_thread=True)

    def start_it(self, **wanted: Any) -> dict[str, Any]:
        with self.lock:
            self.asked.append(wanted)
            if self.busy:
                raise AcquisitionRefused(f"{self.record['acquisition']} is under way", remedy="wait for its end")
            if "/forbidden/" in wanted["output_file"]:
                raise AcquisitionRefused("cannot start x", reasons=["/forbidden is not writable", "the disk is full"])
            self.busy = True
            self.record = {
                "acquisition": Path(wanted["output_file"]).stem,
                "state": "WAITING_IMAGES",
                "message": "",
                "info": {
                    "n_images": wanted["frames"],
                    "output_file": wanted["output_file"],
                    "run_id": wanted["run_id"],
                },
                "stats": {
                    "n_write_completed": 0,
                    "n_write_requested": 0,
                    "start_time": time.time(),
                    "stop_time": None,
                },
            }
        begun = self.status_it()
        if self.at_once:
            self.end()
        return begun

    def stop_it(self) -> dict[str, Any]:
        self.end("Interrupted.")
        return self.status_it()

    def status_it(self) -> dict[str, Any]:
        with self.lock:
            written = self.record["stats"]["n_write_completed"] if self.record else 0
            return {
                "state": "WRITING" if self.busy else "READY",
                "record": dict(self.record),
                "frames_written": written,
                "bytes_written": 1000 * written,
            }

    def log_it(self, n: int = 100) -> list[dict[str, Any]]:
        with self.lock:
            return self.ended[:n]

    def get_config_it(self) -> dict[str, Any]:
        return {"writer_user_id": self.user}

    def set_config_it(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        if changes.get("writer_user_id") == 666:
            raise ConfigurationError("writer_user_id: there is no user 666")
        self.user = changes["writer_user_id"]
        return self.get_config_it()

    def write(self, images: int) -> None:
        """Have so many images in the file."""
        with self.lock:
            stats = {**self.record["stats"], "n_write_completed": images, "n_write_requested": images}
            self.record = {**self.record, "state": "WRITING", "stats": stats}

    def end(self, message: str = "Completed.", state: str = "FINISHED") -> None:
        """End the acquisition, if there is one."""
        with self.lock:
            if self.busy:
                stats = {**self.record["stats"], "stop_time": time.time()}
                self.record = {**self.record, "state": state, "message": message, "stats": stats}
                self.ended.insert(0, self.record)
                self.busy = False

    def forget(self) -> None:
        """Be as after a restart: only the log is left."""
        with self.lock:
            self.busy, self.record = False, {}


class FakeReceiver(DataNodeServer):
    """A receiver that takes any configuration but a few."""

    def setup(self) -> None:
        self.deployed: dict[str, Any] = {
            "bit_depth": 16,
            "detector_name": "JF1M",
            "detector_type": "jungfrau",
            "image_pixel_height": 1024,
            "image_pixel_width": 1024,
            "n_modules": 2,
            "start_udp_port": 50000,
            "module_positions": {"0": [0, 0, 1023, 511], "1": [0, 512, 1023, 1023]},
        }
        self.asked: list[Mapping[str, Any]] = []
        self.bytes = self.frames = 0
        self.hang = threading.Event()
        self.hang.set()
        self.register_control("get_config", lambda: dict(self.deployed))
        self.register_control("set_config", self.set_it, in_thread=True)
        self.register_control("status", self.status_it)

    def set_it(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(dict(changes))
        self.hang.wait(20)
        problems = [f"{key} is not known" for key in changes if key not in self.deployed]
        if changes.get("bit_depth") not in (None, 16, 32):
            problems.append(f"bit_depth {changes['bit_depth']} is not one of 16, 32")
        if problems:
            raise ConfigurationError("; ".join(problems), problems=problems)
        self.deployed.update(changes)
        return dict(self.deployed)

    def status_it(self) -> dict[str, Any]:
        return {"counters": {"bytes": self.bytes, "frames": {"complete": self.frames, "partial": 0}}}


class Rig:
    """A gateway with its two nodes, a reader of its HTTP and std-daq's own client."""

    def __init__(self, host: GatewayHost, writer: FakeWriter, receiver: FakeReceiver) -> None:
        self.gateway: StdDaq = host.gateway  # type: ignore[assignment]
        self.writer, self.receiver = writer, receiver
        self.http = Reader(self.gateway.port)
        self.url = f"http://127.0.0.1:{self.gateway.port}"
        self.client = StdDaqClient(url_base=self.url)

    def error(self, method: str, path: str, body: Any = None) -> str:
        """Return the message of a call that is to fail as std-daq's do."""
        answer = self.http.ask(method, path, body)
        assert answer.status == 200, answer.body
        assert answer.json["status"] == "error", answer.json
        return str(answer.json["message"])


def run_gateway(network: Network, name: str, **options: Any) -> GatewayHost:
    """Start a gateway as the user ``control``; wait until it is on the network."""
    user = Credentials("control", network.state.secret("control"))

    def make() -> GatewayHost:
        host = GatewayHost(StdDaq, name, network.endpoint, user, {"port": 0, **options}, state=network.state)
        host.start().addErrback(print)
        return host

    host = in_reactor(make)
    wait_until(lambda: host.gateway.joined, 15, "the gateway's login")
    return host


@contextmanager
def rig(network: Network, name: str = "std_daq", **options: Any) -> Iterator[Rig]:
    """Run a gateway before fake nodes until the block ends."""
    writer = network.start(FakeWriter, name=f"{name}_writer")
    receiver = network.start(FakeReceiver, name=f"{name}_receiver")
    (network.state.path / f"{name}.json").unlink(missing_ok=True)
    host = run_gateway(network, name, **{"writer": writer.name, "receiver": receiver.name, **options})
    try:
        yield Rig(host, writer.node, receiver.node)
    finally:
        receiver.node.hang.set()
        in_reactor(host.stop)

"""A whole site behind the gateway: real packets, real files, and std-daq's own client, unmodified."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (gives h5py the filter of the files)
import numpy as np
import pytest
import requests
import zmq
from PIL import Image as Picture
from sisockdaq.gateways.std_daq import StdDaq
from std_daq_client import StdDaqAdminException, StdDaqClient

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.cli._trial import Trial, private_site, trial
from sisockdaq.cli.packets import udp_targets
from sisockdaq.detector.simulator import Simulation, simulate
from sisockdaq.errors import SisockdaqError
from sisockdaq.frames import Ledger
from sisockdaq.gateway import GatewayHost
from sisockdaq.nexus.reader import read_master
from sisockdaq.router import free_port
from sisockdaq.session import Credentials, site_endpoint
from sisockdaq.testing import wait_until
from tests.endtoend.house import Sending, images_of
from tests.gateways.grafana.rig import Reader

SEED = 3
DEADLINE = 40.0

SITE = """\
site: stddaq
detector: {model: jungfrau, modules: 2, readout_rows: 64}
nodes:
  receiver: {type: detector_receiver, udp: [{port: 50000}, {port: 50001}], ring_slots: 64}
  writer:   {type: file_writer, directory: runs, images_per_file: 20, flush_interval: 0.2}
  archive:  {type: hdf5_archive, directory: runs, growing_interval: 0.2}
"""


class Daq:
    """The site as a beamline has it: a detector that can be triggered, and the address of its DAQ."""

    def __init__(self, running: Trial, gateway: StdDaq, live: str) -> None:
        self.site, self.trial, self.gateway, self.live = running.site, running, gateway, live
        self.url = f"http://127.0.0.1:{gateway.port}"
        self.client = StdDaqClient(url_base=self.url)
        self.http = Reader(gateway.port)
        assert self.site.detector is not None
        self.simulation = Simulation(self.site.detector, seed=SEED)
        self.folder = Path(self.site.resolve_output("runs"))
        self._next = 1
        self._sendings: list[Sending] = []

    def send(self, frames: int | None, rate: float = 100.0) -> int:
        """Have the detector send frames; return the number of the first."""
        first, self._next = self._next, self._next + (frames or 100_000)
        detector = self.site.detector
        assert detector is not None

        def send(count: int | None, on_frame: Any, stop: threading.Event) -> Any:
            return simulate(
                detector, udp_targets(self.site), frames=count, rate=rate, first_frame=first, seed=SEED,
                simulation=self.simulation, on_frame=on_frame, stop=stop,
            )  # fmt: skip

        self._sendings.append(Sending(send, frames))
        return first

    def silence(self) -> None:
        for sending in self._sendings:
            sending.halt()
        self._sendings.clear()

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """Poll as clients do, until the acquisition is so; return the status. A failed one is not waited for."""

        def reached() -> dict[str, Any] | None:
            status = self.client.get_status()
            acquisition = status["acquisition"]
            seen = {"state": acquisition["state"], "writer": status["state"], **acquisition["stats"]}
            if all(seen[key] == value for key, value in wanted.items()):
                return status
            assert seen["state"] != "FAILED", acquisition["message"]
            return None

        try:
            return dict(wait_until(reached, DEADLINE, f"{wanted}"))
        except AssertionError as error:  # with what was lost on the way: a busy machine may have had no time to receive
            counters = in_reactor(self.gateway.daq.ask, "receiver", "status").get("counters")
            raise AssertionError(f"{error}; {self.client.get_status()}; received: {counters}") from None

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daq]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "site.yml").write_text(SITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISOCKDAQ_STATE", str(tmp_path_factory.mktemp("s")))
        with trial(private_site(folder, "test")) as site:
            live = f"tcp://127.0.0.1:{free_port()}"
            user = Credentials("control", site.site.state.secret("control"))
            options = {"port": 0, "live": live, "live_interval": 0.02, "simulation": True}

            def make() -> GatewayHost:
                host = GatewayHost(
                    StdDaq, "std_daq", site_endpoint(site.site), user, options, site.site, site.site.state
                )
                host.start().addErrback(print)
                return host

            host = in_reactor(make)
            wait_until(lambda: host.gateway.joined, 15, "the gateway's login")
            daq = Daq(site, host.gateway, live)  # type: ignore[arg-type]
            wait_until(lambda: ready(daq), DEADLINE, "the writer to have its source")
            yield daq
            daq.silence()
            in_reactor(host.stop)


def ready(daq: Daq) -> bool:
    """Whether the writer is attached to the receiver: it takes a start then."""
    with suppress(SisockdaqError):
        status = in_reactor(daq.gateway.daq.ask, "writer", "status")
        return bool(status.get("source"))
    return False


@pytest.fixture
def daq(running: Daq) -> Iterator[Daq]:
    yield running
    running.silence()
    running.client.stop_writer()


def rows(path: str) -> int:
    return len(images_of(path))


def test_what_a_real_client_does(daq: Daq) -> None:
    """Stop, configure, wait for READY, stop again, start, wait for images, take them, stop."""
    client, path = daq.client, daq.path("real_client.h5")
    client.stop_writer()
    client.set_config(client.get_config())
    daq.wait(writer="READY")
    client.stop_writer()
    begun = client.start_writer_async({"output_file": path, "n_images": 30, "run_id": 20260101})
    assert begun["acquisition"]["info"] == {"n_images": 30, "output_file": path, "run_id": 20260101}
    daq.wait(state="WAITING_IMAGES", writer="WRITING")
    first = daq.send(30)
    ended = daq.wait(state="FINISHED", n_write_completed=30)
    assert ended["acquisition"]["message"] == "Completed."
    assert client.stop_writer()["acquisition"] == ended["acquisition"]
    images = images_of(path)
    assert len(images) == 30
    assert all((image == daq.simulation.image(first + i)).all() for i, image in enumerate(images))
    (logged,) = client.get_logs(1)
    assert logged == ended["acquisition"]
    assert logged["stats"]["start_time"] < logged["stats"]["stop_time"] <= time.time()


def test_every_face_tells_the_same(daq: Daq) -> None:
    """WAMP and REST, status and log, and the file itself: one record, one ledger."""
    path = daq.path("faces.h5")
    daq.client.start_writer_async({"output_file": path, "n_images": 20, "run_id": "faces-1"})
    daq.wait(state="WAITING_IMAGES")
    assert daq.http.get("/writer/ledger") == {
        "status": "ok",
        "message": "faces: a ledger comes with the end.",
        "ledger": {"acquisition": "faces", "run_id": "faces-1", "ledger": None},
    }
    waiting = daq.http.get("/writer/status")["progress"]
    assert (waiting["share"], waiting["time_left"]) == (0, None)
    daq.send(10)
    daq.wait(n_write_completed=10)
    assert daq.http.get("/writer/status")["progress"]["share"] == 0.5
    daq.send(10)
    rest = daq.wait(state="FINISHED", n_write_completed=20)["acquisition"]
    reply = daq.http.get("/writer/status")
    assert (reply["progress"]["share"], reply["progress"]["time_left"]) == (1, None)
    wamp = in_reactor(daq.gateway.daq.ask, "writer", "status")
    (logged,) = in_reactor(daq.gateway.daq.ask, "writer", "log", 1)
    for told in (wamp["record"], {key: logged[key] for key in rest}, daq.client.get_logs(1)[0]):
        assert told == rest
    ledger = daq.http.get("/writer/ledger")["ledger"]["ledger"]
    for name in ("faces-1", "faces"):
        assert daq.http.get(f"/writer/ledger/{name}")["ledger"]["ledger"] == ledger
    assert wamp["ledger"] == logged["ledger"] == read_master(Path(path)).ledger == ledger
    assert Ledger.from_dict(ledger).balance() == []
    assert Ledger.from_dict(ledger).reported("frames_written") == 20
    # An acquisition that is over is found in the log once another has followed.
    daq.client.start_writer_async({"output_file": daq.path("after.h5"), "n_images": 1})
    daq.client.stop_writer()
    assert daq.http.get("/writer/ledger/faces-1")["ledger"]["ledger"] == ledger
    assert "knows no acquisition other" in daq.http.get("/writer/ledger/other")["message"]


def test_one_image_is_one_row(daq: Daq) -> None:
    path = daq.path("one.h5")
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(daq.client.start_writer_sync, {"output_file": path, "n_images": 1})
        try:
            daq.wait(state="WAITING_IMAGES")
            daq.send(1)
            ended = writing.result(DEADLINE)
        finally:
            daq.client.stop_writer()  # a write that does not end would keep the pool for ever
    assert ended["acquisition"]["stats"]["n_write_completed"] == 1
    assert rows(path) == 1


def test_a_stop_in_the_middle_leaves_as_many_rows_as_images(daq: Daq) -> None:
    path = daq.path("stopped.h5")
    daq.client.start_writer_async({"output_file": path, "n_images": 100_000})
    daq.send(None)
    wait_until(lambda: written(daq) > 5, DEADLINE, "images")
    with pytest.raises(StdDaqAdminException, match="stopped is under way"):
        daq.client.start_writer_async({"output_file": daq.path("other.h5"), "n_images": 1})
    stopped = daq.client.stop_writer()
    assert stopped["state"] == "READY"
    acquisition = stopped["acquisition"]
    assert (acquisition["state"], acquisition["message"]) == ("FINISHED", "Interrupted.")
    written_now = acquisition["stats"]["n_write_completed"]
    assert written_now > 5
    # What a busy machine had no time to receive keeps its place in the file.
    ledger = Ledger.from_dict(in_reactor(daq.gateway.daq.ask, "writer", "status")["ledger"])
    assert ledger.balance() == []
    assert rows(path) == ledger.frames_expected == written_now + ledger.dropped


def test_a_start_is_refused_with_the_reasons(daq: Daq, tmp_path: Path) -> None:
    for path, reason in (
        (str(tmp_path / "x.h5"), "is not below a folder that this writer may use"),
        (daq.path("nowhere/x.h5"), "there is no folder"),
    ):
        with pytest.raises(StdDaqAdminException, match=reason):
            daq.client.start_writer_async({"output_file": path, "n_images": 1})
    assert daq.client.get_status()["state"] == "READY"


def written(daq: Daq) -> int:
    return int(daq.client.get_status()["acquisition"]["stats"]["n_write_completed"] or 0)


def test_rates_are_those_of_the_detector(daq: Daq) -> None:
    daq.send(None, rate=50)

    def steady() -> dict[str, Any] | None:
        """A machine that does much else sends in bursts, but now and then a second is as it should be."""
        rates = daq.client.get_stats()["detector"]
        return rates if 35 < rates["images_per_second"] < 65 else None

    found = wait_until(steady, DEADLINE, "rates")
    a_frame = 32 * (8192 + 48)
    assert found["bytes_per_second"] / found["images_per_second"] == pytest.approx(a_frame, rel=0.2)


def test_the_deployed_configuration_is_the_detectors(daq: Daq) -> None:
    config = daq.client.get_config()
    assert (config["image_pixel_height"], config["image_pixel_width"]) == (128, 1024)
    assert (config["bit_depth"], config["n_modules"], config["detector_type"]) == (16, 2, "jungfrau")
    assert daq.client.get_deployment_status()["status"] == "SUCCESS"
    with pytest.raises(StdDaqAdminException, match="bit_depth"):
        daq.client.set_config({"bit_depth": 7})
    assert daq.client.get_config() == config


def test_a_new_configuration_reaches_the_file(daq: Daq) -> None:
    """Modules change places: the same packets make another image, in the next file, without a restart."""
    before = daq.client.get_config()
    flipped = {"0": [0, 127, 1023, 64], "1": [0, 63, 1023, 0]}
    try:
        assert daq.client.set_config({"module_positions": flipped})["module_positions"] == flipped
        assert daq.client.get_deployment_status()["message"] == "Deployment successful"
        path = daq.path("flipped.h5")
        daq.client.start_writer_async({"output_file": path, "n_images": 2})
        daq.wait(state="WAITING_IMAGES")
        first = daq.send(2)
        daq.wait(state="FINISHED")
        assert (images_of(path)[0] == daq.simulation.image(first)[::-1]).all()
    finally:
        daq.client.set_config({"module_positions": before["module_positions"]})


def test_a_start_may_follow_each_new_configuration_at_once(daq: Daq) -> None:
    before = daq.client.get_config()["module_positions"]
    flipped = {"0": [0, 127, 1023, 64], "1": [0, 63, 1023, 0]}
    for number, positions in enumerate([flipped, before] * 3):
        path = daq.path(f"configured_{number}.h5")
        daq.client.set_config({"module_positions": positions})
        begun = daq.client.start_writer_async({"output_file": path, "n_images": 1})
        assert begun["acquisition"]["state"] == "WAITING_IMAGES"
        first = daq.send(1)
        daq.wait(state="FINISHED", n_write_completed=1)
        (image,) = images_of(path)
        assert (image == daq.simulation.image(first)[:: -1 if positions is flipped else 1]).all()


def test_recorded_images_come_back_by_run_id(daq: Daq) -> None:
    path = daq.path("seen.h5")
    daq.client.start_writer_async({"output_file": path, "n_images": 3, "run_id": "seen-1"})
    daq.wait(state="WAITING_IMAGES")
    first = daq.send(3)
    daq.wait(state="FINISHED")
    about = wait_until(lambda: described(daq, "seen-1"), DEADLINE, "the archive to have it")
    assert about["log_info"]["output_file"] == path
    assert about["file_info"]["n_images"] == 3
    assert (about["file_info"]["image_pixel_height"], about["file_info"]["dtype"]) == (128, "uint16")
    expected = daq.simulation.image(first + 2)
    raw = daq.http.ask("GET", "/file/seen-1/2?format=npy")
    assert raw.headers["content-type"] == "application/x-npy"
    assert (np.load(BytesIO(raw.body)) == expected).all()
    numbers = daq.http.get("/file/seen/2?format=json")["image"]
    assert (np.array(numbers["data"]) == expected).all()
    assert (numbers["frame"], numbers["shape"], numbers["type"]) == (first + 2, [128, 1024], "uint16")
    for form in ("png", "jpeg"):
        picture = Picture.open(BytesIO(daq.http.ask("GET", f"/file/seen/0?format={form}").body))
        assert (picture.format, picture.size) == (form.upper(), (1024, 128))
    answer = daq.http.get("/file/seen/3")
    assert (answer["status"], "its images are 0 to 2" in answer["message"]) == ("error", True)


def described(daq: Daq, name: str) -> dict[str, Any] | None:
    found = daq.http.get(f"/file/{name}").get("file_metadata")
    return found if found and found["file_info"]["n_images"] == 3 else None


def test_live_images_are_published_and_shown(daq: Daq) -> None:
    subscriber = zmq.Context.instance().socket(zmq.SUB)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    subscriber.setsockopt(zmq.RCVTIMEO, int(1e3 * DEADLINE))
    subscriber.connect(daq.live)
    try:
        daq.send(None, rate=50)
        head, pixels = subscriber.recv_multipart()
        about = json.loads(head)
        assert {**about, "frame": 0} == {"htype": "array-1.0", "shape": [128, 1024], "type": "uint16", "frame": 0}
        image = np.frombuffer(pixels, about["type"]).reshape(about["shape"])
        assert (image == daq.simulation.image(about["frame"])).all()
        with requests.get(daq.url + "/daq/live", stream=True, timeout=DEADLINE) as stream:
            assert stream.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
            seen = b""
            for piece in stream.iter_content(4096):
                seen += piece
                if seen.count(b"--frame\r\n") > 3:
                    break
        jpeg = seen.split(b"\r\n\r\n", 1)[1].split(b"\r\n--frame")[0]
        assert Picture.open(BytesIO(jpeg)).size == (1024, 128)
        assert daq.gateway.live is not None
        wait_until(lambda: daq.gateway.live.viewers == 0, DEADLINE, "the viewer to be forgotten")
    finally:
        subscriber.close(0)


def test_the_simulator_is_started_and_stopped(daq: Daq) -> None:
    assert daq.http.get("/simulation/status")["simulation"]["state"] == "IDLE"
    daq.client.start_writer_async({"output_file": daq.path("simulated.h5"), "n_images": 5})
    daq.wait(state="WAITING_IMAGES")
    started = daq.http.post("/simulation/start", {"rate": 50})
    assert started["simulation"]["state"] == "RUNNING"
    assert "runs already" in daq.http.post("/simulation/start", {})["message"]
    daq.wait(state="FINISHED", n_write_completed=5)
    assert daq.http.post("/simulation/stop", {})["simulation"]["state"] == "IDLE"
    with h5py.File(daq.path("simulated.h5")) as file:
        assert "entry" in file

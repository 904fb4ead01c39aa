"""Every command, field for field, asked by a client that shares no code with the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from sisockdaq.gateways.saxsdog.server import Server
from sisockdaq.gateways.saxsdog.service import Service

from sisockdaq.errors import PortTaken
from sisockdaq.saxsdog.listing import Allowed
from sisockdaq.saxsdog.wire import Guard, new_file_message
from sisockdaq.testing import wait_until
from tests.gateways.saxsdog.rig import (
    SECRET,
    SHAPE,
    LiteralClient,
    SimpleQueue,
    calibration,
    mask_attachment,
    serving,
    valid_pixels,
    write_picture,
)
from tests.saxsdog import literal


@pytest.fixture
def service(base: Path) -> Iterator[Service]:
    with serving(base, strict=False) as made:
        yield made


@pytest.fixture
def ask(service: Service) -> LiteralClient:
    return LiteralClient(service.address)


def begin(ask: LiteralClient, **changes: Any) -> dict[str, Any]:
    conf = calibration(**changes)
    reply = ask("new", {"calibration": conf}, mask_attachment(valid_pixels()))
    assert reply == {"result": "new queue", "data": {"cal": conf}}
    return conf


def test_without_a_queue(ask: LiteralClient) -> None:
    assert ask("stat") == {"result": "stat", "data": {"stat": {}}}
    for command in ("plot", "plotdata", "get"):
        assert ask(command) == {"result": "no queue", "data": {}}
    assert ask("close") == {"result": "queue closed", "data": {"stat": {}}}
    assert ask("abort") == {"result": "queue aborted", "data": {"stat": {}}}
    assert ask("readdir") == {"result": "ValueError", "data": {"Error": "Start Queue first"}}
    assert ask("fileslist") == {"result": "resultfileslists", "data": {"fileslist": {}}}
    assert ask("getmergedata") == {}
    assert ask("mergestat") == {"result": "stat", "data": {"mergeinfo": ""}}
    assert ask("mergedata", {"mergeconf": {}})["result"] == "Error"


def test_a_queue_from_new_to_abort(base: Path, service: Service, ask: LiteralClient) -> None:
    conf = begin(ask)
    assert ask("plot")["result"] == "Empty"
    pixels = write_picture(base / "run1" / "a.tif")
    reply = ask("readdir")
    assert reply["result"] == "queue restarted with all files"
    assert set(reply["data"]["stat"]) == {"images processed", "queue length", "time", "start time"}

    reply = ask("plot")
    assert reply["result"] == "plot"
    assert set(reply["data"]) == {"filename", "graphs", "stat", "history", "IntegralParameters"}
    (graph,) = reply["data"]["graphs"]
    assert {"array", "columnLabels", "kind", "conf", "mask", "Integparam", "Image"} <= set(graph)
    expected = literal.radial(conf, conf["Masks"][0], valid_pixels(), pixels)
    np.testing.assert_allclose(np.array(graph["array"]), np.array(expected), rtol=1e-9)
    assert graph["conf"] == conf
    assert len(reply["data"]["history"]) == 1
    assert set(reply["data"]["IntegralParameters"]["R0"]) == {"time", "file", "I0", "I1", "I2"}
    assert ask("plotdata")["data"]["graphs"] == reply["data"]["graphs"]

    got = ask("get")
    assert got == {"result": "cal", "data": {"cal": conf, "attachments": [mask_attachment(valid_pixels())]}}
    assert list(ask("fileslist")["data"]["fileslist"]) == ["Radial0"]
    assert ask("stat")["data"]["stat"]["images processed"] == 1
    assert "1 pictures" in service.about()
    assert ask("abort") == {"result": "queue aborted", "data": {"stat": {}}}
    assert ask("plot")["result"] == "no queue"


def test_close_ignores_what_is_new_and_keeps_the_rest(base: Path, service: Service, ask: LiteralClient) -> None:
    begin(ask)
    write_picture(base / "run1" / "a.tif")
    assert service.server.new_file("run1/a.tif")
    reply = ask("close")
    assert (reply["result"], reply["data"]["stat"]["images processed"]) == ("queue closed", 1)
    assert not service.server.new_file("run1/a.tif")
    assert ask("plot")["result"] == "plot"
    assert service.counters()["news_ignored"] == 1


def test_a_new_queue_takes_the_place_of_the_old_only_when_it_can(service: Service, ask: LiteralClient) -> None:
    begin(ask)
    first = service.server._queue
    broken = calibration(Geometry__DedectorDistanceMM=-3)
    reply = ask("new", {"calibration": broken}, mask_attachment(valid_pixels()))
    assert reply["result"] == "ValidationError in request"
    assert "DedectorDistanceMM" in reply["data"]
    assert service.server._queue is first
    begin(ask)
    assert isinstance(first, SimpleQueue)
    assert first.aborted
    assert service.server._queue is not first


@pytest.mark.parametrize(
    ("directory", "result", "text"),
    [("..", "OSError", "outside of the folders"), ("/etc", "OSError", "outside"), ("none", "OSError", "is no folder")],
)
def test_a_queue_stays_below_the_servers_folder(ask: LiteralClient, directory: str, result: str, text: str) -> None:
    reply = ask("new", {"calibration": calibration(directory)}, mask_attachment(valid_pixels()))
    assert reply["result"] == result
    assert text in reply["data"]["Error"]


def test_new_needs_its_masks(ask: LiteralClient) -> None:
    reply = ask("new", {"calibration": calibration()})
    assert reply == {"result": "ValueError", "data": {"Error": "the calibration has 1 masks, 0 came with it"}}
    assert ask("new", {})["result"] == "ValidationError in request"


def test_what_cannot_be_reduced_is_refused_with_reason_and_next_step_and_the_queue_goes_on(
    base: Path, service: Service, ask: LiteralClient
) -> None:
    begin(ask)
    good = mask_attachment(valid_pixels())
    for number, (changes, mask, said) in enumerate([
        ({}, mask_attachment(np.ones((7, 9), bool)), "Masks.0 (mask.msk): is 7 × 9, Geometry.Imagesize says 40 × 31 "
         "→ Imagesize is [rows, columns]; take the mask made for this detector"),
        ({}, mask_attachment(np.zeros(SHAPE, bool)), "every pixel is masked → a pixel that is 0 in the file is valid"),
        ({}, {"filename": "mask.msk", "data": "x"}, "mask.msk: cannot be read as a mask"),
        ({"Geometry__DedectorDistanceMM": -3}, good, "Geometry.DedectorDistanceMM: Input should be greater than 0"),
        ({"Geometry__BeamCenter": [float("nan"), 3]}, good, "Geometry.BeamCenter.0: Input should be a finite number"),
    ]):  # fmt: skip
        reply = ask("new", {"calibration": calibration(**changes)}, mask)
        assert reply["result"] in ("ValueError", "ValidationError in request")
        told = reply["data"] if isinstance(reply["data"], str) else reply["data"]["Error"]
        assert said in told
        write_picture(base / "run1" / f"{number}.tif")
        assert service.server.new_file(f"run1/{number}.tif")
        assert ask("stat")["data"]["stat"]["images processed"] == number + 1


def test_only_images_below_the_queues_folder_are_taken(base: Path, service: Service, ask: LiteralClient) -> None:
    begin(ask)
    (base / "run2").mkdir()
    for path in ("run1/a.tif", "run2/a.tif", "run1/note.txt"):
        write_picture(base / path)
    taken = [
        service.server.new_file(path) for path in ("run1/a.tif", "run2/a.tif", "run1/../run2/a.tif", "run1/note.txt")
    ]
    assert taken == [True, False, False, False]
    assert service.server.new_file(str(base / "run1" / "a.tif"))


def test_results_never_leave_the_servers_folder(base: Path) -> None:
    engine = Server(Allowed(base), make_queue=SimpleQueue)  # type: ignore[arg-type]
    assert engine._places(base / "run1") == {"relative": "../work"}
    inside = {"relative": "work", "live_list": base / "results" / "filelist_data.log"}
    assert engine._places(base) == inside
    elsewhere = Server(Allowed(base), output=base / "out")._places(base / "run1")
    assert elsewhere == {"output": base / "out", "live_list": base / "out" / "filelist_run1.log"}


def test_a_folder_is_listed(base: Path, ask: LiteralClient) -> None:
    reply = ask("listdir", {"directory": ["."]})
    assert reply == {
        "result": "listdir",
        "data": {"dircontent": [{"isdir": True, "path": "run1"}], "directory": str(base).split("/")},
    }
    assert ask("listdir", {"directory": [".."]})["result"] == "OSError"
    assert ask("listdir", {"directory": ["none"]})["result"] == "OSError"
    assert ask("listdir", {"directory": "run1"})["result"] == "ValueError"


def test_bad_requests_get_their_error_and_the_server_goes_on(service: Service, ask: LiteralClient) -> None:
    tampered = ask.request("listdir", {"directory": ["."]})
    tampered[0] = tampered[0].replace(b'"."', b'"/"')
    other = LiteralClient(service.address, "other")
    for frames, result, text in (
        (tampered, "AuthenticationError", "'Wrong signature.'"),
        (other.request("abort"), "AuthenticationError", "'Wrong signature.'"),
        (ask.request("abort", late=901), "AuthenticationError", "'Untimely request.'"),
        ([b"{"], "ValueError in request", "request: Expecting"),
        ([b"\xff"], "ValueError in request", "request: "),
        ([b" " * (65 * 2**20)], "ValueError in request", "at most"),
        (ask.request("rm"), "ValidationError in request", ""),
    ):
        reply = ask.send(frames)
        assert reply["result"] == result
        data = reply["data"]
        assert (text in data["Error"]) if isinstance(data, dict) else result.startswith("Validation")
        assert ask("stat")["result"] == "stat"
    assert service.refused == 7


def test_strict_refuses_replays_and_unsigned_masks(base: Path) -> None:
    with serving(base) as service:
        ask = LiteralClient(service.address)
        frames = ask.request("stat")
        assert ask.send(frames)["result"] == "stat"
        assert ask.send(frames)["data"] == {"Error": "'Replayed request.'"}
        reply = ask("new", {"calibration": calibration()}, mask_attachment(valid_pixels()))
        assert reply["data"] == {"Error": "'Unsigned attachments.'"}


def test_a_mistake_of_ours_is_a_server_error(
    service: Service, ask: LiteralClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: Any) -> Any:
        raise ZeroDivisionError("a\nbug")

    monkeypatch.setitem(service.server._commands, "stat", fail)
    assert ask("stat") == {"result": "ServerError", "data": {"Error": "a bug"}}
    assert ask("abort")["result"] == "queue aborted"


def test_a_taken_port_is_named(service: Service, base: Path) -> None:
    second = Service(Server(Allowed(base)), Guard(SECRET), service.address)
    with pytest.raises(PortTaken, match="cannot listen at tcp://"):
        second.start()


def test_a_feeders_news_is_heard_and_nonsense_counted(base: Path) -> None:
    feeder: Any = zmq.Context.instance().socket(zmq.PUB)
    port = feeder.bind_to_random_port("tcp://127.0.0.1")
    try:
        with serving(base, strict=False, feeder=f"tcp://127.0.0.1:{port}") as service:
            ask = LiteralClient(service.address)
            begin(ask)
            write_picture(base / "run1" / "a.tif")

            def heard() -> bool:
                # A subscriber hears only what is published after it was heard of.
                for message in (b"nonsense", json.dumps({"command": "new file"}).encode()):
                    feeder.send(message)
                feeder.send(new_file_message("run1/a.tif"))
                return ask("plot")["result"] == "plot"

            wait_until(heard, 15, "the picture")
            assert service.news_unread >= 1
    finally:
        feeder.close(0)


def test_merging_over_the_wire(base: Path, ask: LiteralClient) -> None:
    from tests.saxsdog.test_logtables import HEADER, tiff

    begin(ask)
    tiff(base / "run1" / "a.tif", HEADER)
    table = {"Name": "Peak", "TimeEpoch": "Unix", "Files": [{"RemotePath": [], "LocalPath": "peak.log"}]}
    conf = {"LogDataTables": [table], "OutputFormats": {"csv": True}, "OutputFileBaseName": ".//results//logs//"}
    log = {"filename": "peak.log", "data": "t\tDuration\n1\t2\n"}
    assert ask("mergedata", {"mergeconf": conf})["result"] == "Error"
    assert ask("mergedata", {"mergeconf": conf}, log) == {"result": "merge startedmergedata", "data": {}}
    counted = wait_until(lambda: ask("stat")["data"]["stat"].get("mergecount"), 15, "the merge")
    assert counted == 1
    assert "mergecount" not in ask("stat")["data"]["stat"]
    assert "The merge is complete." in ask("mergestat")["data"]["mergeinfo"]
    result = ask("getmergedata")
    assert result["result"] == "mergedata"
    assert set(result["data"]) == {"syncplot", "fileslist"}
    assert (base / "run1" / "results" / "logs" / "run1.csv").is_file()

"""States, run ids, logs and ledgers of the stream writer are those of the file writer and of std-daq."""

from __future__ import annotations

from pathlib import Path

import pytest
from sisockdaq.gateways.std_daq.models import Acquisition, WriterStatus
from sisockdaq.gateways.std_daq.words import acquisition_of, writer_of

from sisockdaq.acquisition import AcquisitionState, Record, Request
from sisockdaq.frames import Ledger
from sisockdaq.jungfraujoch.books import Books
from sisockdaq.jungfraujoch.dialect import Header
from sisockdaq.nexus.reader import read_master
from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import StartWriter, finished
from tests.jungfraujoch.sender import Sender, end, frame, start


def test_a_series_is_an_acquisition_as_std_daq_has_it(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer()
    assert WriterStatus.model_validate(writer_of(writer.status())).acquisition.state is None
    sender.send(start(images=10, series_unique_id="abc"), *(frame(i, series_unique_id="abc") for i in range(6)))
    running = wait_until(lambda: (s := writer.status())["images"].get("safe") == 6 and s)
    acquisition = Acquisition.model_validate(acquisition_of(running["record"]))
    assert (acquisition.state, acquisition.stats.n_write_completed) == ("WRITING", 6)
    assert running["progress"] == 0.6
    assert running["ledger"] is None
    sender.send(*(frame(i, series_unique_id="abc") for i in (6, 7, 8)), end(series_unique_id="abc"))
    status = finished(writer)
    ended = Acquisition.model_validate(acquisition_of(status["record"]))
    assert (ended.state, ended.message) == ("FINISHED", "Completed, 1 images are missing.")
    assert ended.info.model_dump() == {
        "n_images": 10,
        "output_file": str(tmp_path / "run_master.h5"),
        "run_id": "abc",
    }
    assert (ended.stats.n_write_completed, ended.stats.n_write_requested) == (9, 9)
    assert status["run_id"] == "abc"
    (logged,) = writer.log()
    assert acquisition_of(logged) == acquisition_of(status["record"])
    assert logged["ledger"] == status["ledger"] == read_master(tmp_path / "run_master.h5").ledger
    ledger = Ledger.from_dict(status["ledger"])
    assert ledger.balance() == []
    assert (ledger.frames_expected, ledger.frames_complete, ledger.dropped) == (10, 9, 1)
    assert [Path(name).name for name in logged["files"]] == [f"run_data_{n:06d}.h5" for n in (1, 2, 3)]


def test_the_log_has_all_that_ended_newest_first(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    journal = tmp_path / "state" / "journal.sqlite"
    writer = start_writer(journal=journal)
    key = {"series_id": 41, "series_unique_id": ""}
    sender.send(start("whole", 3, **key), *(frame(index, **key) for index in range(3)), end(**key))
    finished(writer, "whole")
    sender.send(start("cancelled", 100), *(frame(index) for index in range(3)))
    wait_until(lambda: writer.status()["images"].get("written") == 3)
    writer.cancel()
    sender.run(range(3), prefix="whole", series_unique_id="again")  # refused: the files are there
    wait_until(lambda: writer.status()["messages"]["series_refused"] == 1)
    sender.send(start("lost", 100, series_unique_id="two"), frame(0, series_unique_id="two"))
    wait_until(lambda: writer.status()["file_prefix"] == "lost" and writer.status()["images"].get("written") == 1)
    writer.close()
    wanted = [
        ("lost", "FAILED", "ERROR: the frame source has gone: the writer was ended"),
        ("cancelled", "FINISHED", "Interrupted."),
        ("whole", "FINISHED", "Completed."),
    ]
    again = start_writer(journal=journal)  # what was, is remembered
    log = again.log()
    assert [(each["acquisition"], each["state"], each["message"]) for each in log] == wanted
    assert [each["info"]["run_id"] for each in log] == ["two", "one", 41]
    assert all(Ledger.from_dict(each["ledger"]).balance() == [] for each in log)
    assert again.log(1) == log[:1]


@pytest.mark.parametrize("key", [(0, ""), (7, ""), (7, "x")])
def test_what_a_dead_writer_left_is_logged_as_failed(tmp_path: Path, key: tuple[int, str]) -> None:
    books = Books(tmp_path / "journal.sqlite", "writer")
    left = Record(Request("run", 10, run_id=1), AcquisitionState.WRITING, started=1.0, frames_written=4)
    books.begin(left, Header(key, "run"))
    books.close()
    (logged,) = Books(tmp_path / "journal.sqlite", "writer").newest(5)
    assert (logged["state"], logged["message"].split(";")[0]) == (
        "FAILED", "ERROR: the writer died in the middle of the series")  # fmt: skip
    assert logged["stats"]["stop_time"] is not None

"""The rows of the live table from what supervisor and nodes say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sisockdaq.cli.init import new_site
from sisockdaq.cli.table import cells, row
from sisockdaq.site import Site, load_site
from sisockdaq.supervisor import PartStatus


@pytest.fixture
def site(tmp_path: Path) -> Site:
    new_site(tmp_path, "test")
    return load_site(tmp_path)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (
            "detector_receiver",
            {"frame_rate": 99.7, "packets_lost_total": 2.0, "ring_use": 3.2},
            ("100 frames/s", "2", "JUNGFRAU 1024×512, 1 module, ring 3 %"),
        ),
        ("detector_receiver", {}, ("", "", "JUNGFRAU 1024×512, 1 module")),
        ("integrator", {"frame_rate": 100.2}, ("100 curves/s", "", "1000 bins in q_nm^-1")),
        ("file_writer", {"state": "READY", "acquisition": None}, ("", "", "")),
        (
            "file_writer",
            {"samples_recorded": 1200.0, "samples_lost": 3.0, "recording_fields": 7.0, "recording_problem": ""},
            ("", "3", "1200 samples of 7 fields"),
        ),
        (
            "file_writer",
            {"samples_recorded": 1200.0, "samples_lost": 0.0, "recording_problem": "no space left"},
            ("", "0", "no space left"),
        ),
        (
            "file_writer",
            {
                "state": "WRITING",
                "acquisition": "run_0001",
                "frames": 1000,
                "frames_written": 412,
                "rate": 100.0,
                "time_left": 5.88,
                "bytes_written": 38_000_000,
                "frames_discarded": 0,
            },
            ("100 frames/s", "0", "run_0001: 412 of 1000, 6 s left, 38 MB"),
        ),
        (
            "file_writer",
            {"state": "READY", "acquisition": "a", "frames": 3, "frames_written": 3, "files": ["/d/a_master.h5"]},
            ("", "", "a: 3 of 3, a_master.h5"),
        ),
        ("ocs_feed", {}, ("", "", "")),
        (
            "ocs_feed",
            {"ocs_feed.sample_rate": 9.5, "ocs_feed.dropped": 2, "ocs_feed.feeds": 3, "ocs_feed.fields": 40},
            ("10 samples/s", "2", "40 fields of 3 feeds"),
        ),
        ("someone_elses", {"anything": 1}, ("", "", "")),
    ],
)
def test_a_node_s_own_words_become_cells(
    site: Site, kind: str, values: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    assert cells(kind, values, site) == expected


def test_a_part_that_is_not_up_shows_why(site: Site) -> None:
    part = PartStatus("receiver", "detector_receiver", "waiting", restarts=2, message="ended by SIGKILL")
    assert row(site, part, {"receiver": {"frame_rate": 100}}) == ("waiting (2 restarts)", "", "", "ended by SIGKILL")


def test_router_shows_its_address_and_the_writer_that_it_writes(site: Site) -> None:
    assert row(site, PartStatus("router", "crossbar", "up"), {})[3] == "wss://127.0.0.1:8080/ws"
    assert row(site, PartStatus("writer", "file_writer", "up"), {"writer": {"state": "WRITING"}})[0] == "writing"


def test_the_hub_counts_the_nodes_that_answer(site: Site) -> None:
    hub = PartStatus("hub", "hub", "up")
    assert row(site, hub, {"receiver": {"frame_rate": 1.0}, "sensors": {}})[3] == "2 nodes answer"
    assert row(site, hub, {"sensors": {}})[3] == "1 node answers"

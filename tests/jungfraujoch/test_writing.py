"""What is in the files after a series, for both dialects and all ways to pack pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import zmq

from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import StartWriter, finished, images_of
from tests.jungfraujoch.sender import SHAPE, Sender, end, frame, image, payload, plain_lz4, start, tagged


def test_a_series_of_jungfraujoch(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    mask = np.zeros(SHAPE, "<u4")
    mask[3, 5] = 1
    flat, lookup = np.linspace(0.9, 1.1, mask.size, dtype="<f4").reshape(SHAPE), np.arange(64, dtype="<u4")
    cell = {"a": 78.0, "b": 78.0, "c": 39.0, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    sender.send(start("lyso/run", unit_cell=cell, sample_name="lysozyme", detector_distance=0.155, frame_time=0.001,
                      incident_energy=12400.0, beam_center_x=24.5, pixel_size_x=75e-6, pixel_size_y=75e-6,
                      pixel_mask={"default": tagged(mask)}, flatfield={"default": tagged(flat)},
                      countrate_correction_lookup_table=tagged(lookup), error_value=65534,
                      later_key={"x": [1, 2]}))  # fmt: skip
    pedestal = np.full(SHAPE, 7, "<u2")
    sender.send({"type": "calibration", "data": {"pedestal_G0": tagged(pedestal)}})
    sender.send(*(frame(index, packets_expected=64, packets_received=64) for index in range(10)))
    sender.send({"type": "metadata", "images": []}, end())
    status = finished(writer, "lyso/run")
    assert (status["acquisition_state"], status["message"]) == ("FINISHED", "Completed.")
    assert status["images"]["written"] == status["images"]["expected"] == 10
    assert status["progress"] == 1.0
    assert status["messages"]["metadata"] == 1
    folder = tmp_path / "lyso"
    np.testing.assert_array_equal(images_of(folder), [image(index) for index in range(10)])
    with h5py.File(folder / "run_master.h5") as file:
        detector = file["entry/instrument/detector"]
        np.testing.assert_array_equal(detector["pixel_mask"], mask)
        np.testing.assert_array_equal(detector["flatfield"], flat)
        np.testing.assert_array_equal(detector["calibration/pedestal_G0"], pedestal)
        np.testing.assert_array_equal(detector["calibration/countrate_correction_lookup_table"], lookup)
        assert detector["detector_distance"][()] == 0.155
        assert detector["error_value"][()] == 65534
        assert detector["detectorSpecific/nimages"][()] == 10
        assert file["entry/sample/name"][()] == b"lysozyme"
        assert list(file["entry/sample/unit_cell"]) == [78, 78, 39, 90, 90, 90]
        assert file["entry/instrument/beam/incident_energy"][()] == 12400.0
    with h5py.File(folder / "run_data_000001.h5") as file:
        assert list(file["entry/series/stream/packets_received"]) == [64] * 4


def test_a_series_of_a_dectris_detector(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    """The least that Stream V2 has: no file prefix, no sizes, times relative to the date of the series."""
    from datetime import UTC, datetime

    writer = start_writer(file_prefix="series_{series_id}", images_per_file=3)
    date = datetime(2024, 5, 1, 12, tzinfo=UTC)
    sender.send({"type": "start", "series_id": 7, "series_unique_id": "u", "number_of_images": 5})
    for index in range(5):
        times = {"start_time": [index, 100], "stop_time": [index + 1, 100], "series_date": date}
        sender.send(frame(index, series_id=7, series_unique_id="u", **times))
    sender.send(end(series_id=7, series_unique_id="u"))
    assert finished(writer, "series_7")["acquisition_state"] == "FINISHED"
    np.testing.assert_array_equal(images_of(tmp_path, "series_7"), [image(index) for index in range(5)])
    with h5py.File(tmp_path / "series_7_data_000001.h5") as file:
        numbers = file["entry/series/stream"]
        np.testing.assert_allclose(numbers["time"], [date.timestamp() + index / 100 for index in range(3)])
        np.testing.assert_allclose(numbers["last"][0], date.timestamp() + 0.01)


def zstd_chunk(pixels: np.ndarray[Any, Any], folder: Path) -> bytes:
    """Return a chunk that HDF5's own filter has made."""
    path = folder / "zstd.h5"
    with h5py.File(path, "w") as file:
        filters = hdf5plugin.Bitshuffle(nelems=0, cname="zstd")
        data = file.create_dataset("x", data=pixels[None], chunks=(1, *pixels.shape), **filters)
        return bytes(data.id.read_direct_chunk((0, 0, 0))[1])


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i2", "<i4", ">u2", "|u1"])
@pytest.mark.parametrize("packing", ["bslz4", "lz4", "bszstd"])
def test_packed_pixels_are_stored_as_they_came(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, packing: str, dtype: str
) -> None:
    writer = start_writer()
    pixels = [image(index, dtype) - (50 if dtype in ("<i2", "<i4") else 0) for index in range(3)]
    if packing == "bszstd":
        came = [zstd_chunk(each, tmp_path) for each in pixels]
    else:
        came = [payload(each) if packing == "bslz4" else plain_lz4(each) for each in pixels]
    header = start(images=3)
    del header["image_dtype"]
    sender.send(header)
    sender.send(*(frame(i, tagged(pixels[i], (packing, came[i]))) for i in range(3)), end())
    assert finished(writer)["message"] == "Completed."
    with h5py.File(tmp_path / "run_data_000001.h5") as file:
        stored = [file["entry/data/data"].id.read_direct_chunk((row, 0, 0)) for row in range(3)]
    assert [(mask, bytes(data)) for mask, data in stored] == [(0, each) for each in came]
    np.testing.assert_array_equal(images_of(tmp_path), pixels)


@pytest.mark.parametrize("compression", ["bslz4", "none"])
def test_pixels_that_come_without_packing(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, compression: str
) -> None:
    writer = start_writer(compression=compression)
    sender.send(start(images=9), *(frame(i, tagged(image(i))) for i in range(9)), end())
    assert finished(writer)["message"] == "Completed."
    np.testing.assert_array_equal(images_of(tmp_path), [image(index) for index in range(9)])
    with h5py.File(tmp_path / "run_data_000001.h5") as file:
        assert bool(file["entry/data/data"]._filters) == (compression == "bslz4")


def test_column_major_pixels_and_mixed_packing(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    turned = image(1).T.copy()
    sender.send(start(images=3), frame(0), frame(1, tagged(image(1), order=1040)))
    packed = ("bslz4", payload(turned))
    sender.send(frame(2, tagged(image(1), packed, order=1040)), end())
    assert finished(writer)["message"] == "Completed."
    np.testing.assert_array_equal(images_of(tmp_path), [image(0), image(1), image(1)])


def test_the_first_channel_is_written_and_the_others_counted(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer()
    both = frame(0)
    both["data"] = {"threshold_2": tagged(image(5)), "threshold_1": tagged(image(0))}
    sender.send(start(images=1, channels=["threshold_1", "threshold_2"]), both, end())
    assert finished(writer)["images"]["other_channels"] == 1
    np.testing.assert_array_equal(images_of(tmp_path), [image(0)])


def test_finalised_files_are_told_of_and_can_be_opened(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer(notices="tcp://127.0.0.1:*")
    with zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.subscribe(b"")
        monitor = reader.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        reader.connect(writer.notices_address)
        assert monitor.poll(10_000)
        told = _files_until_told(sender, reader, writer, tmp_path)
        reader.disable_monitor()
        monitor.close()
    cell = {"a": 78.0, "b": 78.0, "c": 39.0, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    assert told[1] == {
        "filename": "p/lyso_data_000002.h5", "nimages": 2, "file_number": 1, "sample_name": "lysozyme",
        "run_name": "lyso_cryo", "run_number": 25, "experiment_group": "p00001", "beam_x_pxl": 1200.0,
        "beam_y_pxl": 1500.0, "detector_distance_m": 0.155, "detector_height_pxl": SHAPE[0],
        "detector_width_pxl": SHAPE[1], "image_time_s": 0.001, "incident_energy_eV": 12400.0, "pixel_size_m": 7.5e-05,
        "saturation": 32766, "space_group_number": 96, "underload": 65535, "unit_cell": cell,
        "user_data": {"param1": "test1", "param2": ["test1", "test2"]},
    }  # fmt: skip
    assert [(each["nimages"], each["file_number"]) for each in told] == [(4, 0), (2, 1)]


def _files_until_told(sender: Sender, reader: Any, writer: Any, folder: Path) -> list[dict[str, Any]]:
    user = {"file_prefix": "p/lyso", "run_name": "lyso_cryo", "run_number": 25, "experiment_group": "p00001",
            "header_appendix": json.dumps({"param1": "test1", "param2": ["test1", "test2"]})}  # fmt: skip
    cell = {"a": 78.0, "b": 78.0, "c": 39.0, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    facts = {"sample_name": "lysozyme", "beam_center_x": 1200.0, "beam_center_y": 1500.0, "detector_distance": 0.155,
             "frame_time": 0.001, "incident_energy": 12400.0, "pixel_size_x": 7.5e-05, "saturation_value": 32766,
             "space_group_number": 96, "unit_cell": cell}  # fmt: skip
    told: list[dict[str, Any]] = []

    def told_of() -> Any:
        while reader.poll(0):
            message = json.loads(reader.recv())
            with h5py.File(folder / message["filename"]) as file:
                assert file["entry"].attrs["finished"] == 1
            told.append(message)
        return len(told)

    # A subscription reaches the publisher a moment after the connection: a first series makes sure of it.
    sender.run(range(1), prefix="first", series_unique_id="one")
    finished(writer, "first")
    number = 0
    while not told_of():
        number += 1
        sender.run(range(1), prefix=f"again{number}")
        finished(writer, f"again{number}")
    told.clear()
    sender.send(start(None, 6, **facts, user_data=user), *(frame(index) for index in range(6)), end())
    wait_until(lambda: told_of() >= 2)
    return told[-2:]


def test_text_that_is_no_json_is_told_as_text(sender: Sender, start_writer: StartWriter) -> None:
    from sisockdaq.frames.stream2 import StartMessage
    from sisockdaq.jungfraujoch.dialect import parse_start
    from sisockdaq.jungfraujoch.notices import finalised_file

    header = parse_start(StartMessage(1, "x", {"file_prefix": "a", "user_data": {"user": "not {json"}}))
    told = json.loads(
        finalised_file(header, filename="a", nimages=1, file_number=0, shape=(2, 3), underload=float("nan"))
    )
    assert told == {"filename": "a", "nimages": 1, "file_number": 0, "detector_height_pxl": 2,
                    "detector_width_pxl": 3, "user_data": "not {json"}  # fmt: skip


def test_messages_are_republished_byte_for_byte(sender: Sender, start_writer: StartWriter) -> None:
    writer = start_writer(republish="tcp://127.0.0.1:*")
    with zmq.Context() as context, context.socket(zmq.PULL) as reader:
        monitor = reader.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        reader.connect(writer.republish_address)
        assert monitor.poll(10_000)
        sent = sender.send(start(images=6), *(frame(index) for index in range(6)), end())
        got = []
        while len(got) < len(sent):
            assert reader.poll(10_000)
            got.append(reader.recv())
        reader.disable_monitor()
        monitor.close()
    assert got == sent
    assert finished(writer)["messages"]["republished"] == len(sent)


def test_nobody_who_reads_costs_no_image(sender: Sender, start_writer: StartWriter) -> None:
    """Start and end are tried for a while, images not; both end up as dropped, and all is written."""
    writer = start_writer(republish="tcp://127.0.0.1:*", republish_watermark=2)
    sender.run(range(20))
    status = finished(writer)
    assert status["images"]["written"] == 20
    wait_until(lambda: writer.status()["messages"]["republish_dropped"] == 22)

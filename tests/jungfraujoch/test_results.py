"""Spots, azimuthal results, regions and times of single images: from messages to where programs look for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest
import silx.io
import silx.io.nxdata
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.jungfraujoch.results import MOST_SPOTS, Announced, ImageResults, announced_results, scalar
from tests.jungfraujoch.conftest import StartWriter, finished
from tests.jungfraujoch.sender import Message, Sender, end, frame, image, start, tagged

Q = [0.5, 1.0, 1.5, 2.0]
ROIS = ("beam", "ring/1")
IMAGES = 10


def spots(index: int) -> list[dict[str, float]]:
    """As many spots as the index says."""
    return [{"x": index + 0.5, "y": 2.0 * spot, "I": 100.0 + spot, "indexed": True} for spot in range(index)]


def results(index: int) -> Message:
    """What an image of Jungfraujoch brings beside its pixels."""
    regions = {
        name: {"sum": 1000 + index, "sum_square": 7, "max": 30 + index, "pixels": 9, "x_weighted": 2000 + 2 * index}
        for name in ROIS
    }
    return {
        "spots": spots(index),
        "az_int_profile": tagged(np.arange(4, dtype="<f4") + index),
        "az_int_profile_count": [4, 3, 2, 1],
        "roi_integrals": regions,
        "real_time": [index + 1, 1000],
        "xfel_pulse_id": 20_000_000_000 + index,
        "indexing_result": index % 2 == 0,
    }


def header(**more: Any) -> Message:
    announced = {"max_spot_count": 16, "az_int_bin_to_q": Q, "rois": [{"name": name} for name in ROIS]}
    return start(images=IMAGES, **announced, **more)


def send(sender: Sender, first: Message) -> None:
    sender.send(first, *(frame(index, **results(index)) for index in range(IMAGES)), end())


@pytest.mark.parametrize("announced", [True, False])
def test_results_are_where_programs_look_for_them(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, announced: bool
) -> None:
    writer = start_writer()
    send(sender, header() if announced else start(images=IMAGES))
    status = finished(writer)
    assert (status["message"], status["images"]["results_left_out"]) == ("Completed.", 0)
    first = 0
    for path in sorted(tmp_path.glob("run_data_*.h5")):
        with h5py.File(path) as file:
            rows = len(file["entry/data/data"])
            mx, roi = file["entry/MX"], file["entry/roi"]
            assert mx["nPeaks"].dtype.kind in "iu"
            for row in range(rows):
                index = first + row
                assert mx["nPeaks"][row] == index
                assert mx["peakXPosRaw"][row, :index].tolist() == [index + 0.5] * index
                assert mx["peakYPosRaw"][row, :index].tolist() == [2.0 * spot for spot in range(index)]
                assert mx["peakTotalIntensity"][row, :index].tolist() == [100.0 + spot for spot in range(index)]
                assert mx["imageIndexed"][row] == (index % 2 == 0)
                assert file["entry/azint/image"][row].tolist() == [index, index + 1, index + 2, index + 3]
                assert file["entry/azint/count"][row].tolist() == [4, 3, 2, 1]
                for name in ("beam", "ring_1"):
                    assert [roi[f"{name}/{number}"][row] for number in ("sum", "sum_sq", "max", "npixel")] == [
                        1000 + index, 7, 30 + index, 9]  # fmt: skip
                    assert roi[f"{name}/x"][row] == 2.0
                    assert np.isnan(roi[f"{name}/y"][row])
                assert file["entry/detector/exptime"][row] == (index + 1) / 1000
                assert file["entry/detector/real_time"][row] == (index + 1) / 1000
                assert file["entry/xfel/pulseID"][row] == 20_000_000_000 + index
            assert mx["peakXPosRaw"].shape == (rows, 16 if announced else 250)
            if announced:
                assert file["entry/azint/bin_to_q"][()].tolist() == Q
        first += rows
    assert first == IMAGES


def test_silx_draws_the_azimuthal_result(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    send(sender, header())
    finished(writer)
    with silx.io.open(str(tmp_path / "run_data_000002.h5")) as file:
        shown = silx.io.nxdata.NXdata(file["/entry/azint"])
        assert shown.is_valid
        np.testing.assert_array_equal(shown.signal[0], [4, 5, 6, 7])
        np.testing.assert_array_equal(shown.axes[1], Q)


def test_the_files_of_results_are_read_as_images(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    send(sender, header())
    finished(writer)
    with fabio.open(str(tmp_path / "run_master.h5")) as found:
        assert found.nframes == IMAGES
        np.testing.assert_array_equal(found.getframe(7).data, image(7))


def test_results_without_room_are_counted_and_images_stay(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer()
    sender.send(start(images=3), frame(0), frame(1, **results(1)), frame(2, spots="many", real_time=None), end())
    status = finished(writer)
    assert status["images"]["written"] == 3
    assert status["images"]["results_left_out"] == 4
    with h5py.File(tmp_path / "run_data_000001.h5") as file:
        assert "MX" not in file["entry"]
        np.testing.assert_array_equal(file["entry/detector/exptime"], [0.001, 0.002, np.nan])


def test_an_image_without_results_reads_as_empty(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer(compression="bslz4")
    plain = frame(2, tagged(image(2)))
    sender.send(header(), frame(0, tagged(image(0)), **results(0)), plain, frame(3, **results(3)), end())
    finished(writer)
    with h5py.File(tmp_path / "run_data_000001.h5") as file:
        assert file["entry/MX/nPeaks"][()].tolist() == [0, 0, 0, 3]
        assert np.isnan(file["entry/azint/image"][1:3]).all()
        assert file["entry/azint/image"][3].tolist() == [3, 4, 5, 6]


def test_the_strongest_spots_are_kept() -> None:
    kept = ImageResults("stream", Announced(spots=2), {})
    (found,) = kept.vectors({"spots": [0, 0, 5.0, 1, 1, 9.0, 2, 2, 7.0]})
    assert found[0] == "stream_spots"
    assert found[1].tolist() == [2, 1, 2, 1, 2, 9, 7]
    assert kept.spots_cut == 1


def test_a_senseless_announcement_costs_nothing() -> None:
    odd = announced_results({"max_spot_count": 2**40, "az_int_bin_to_q": "all", "rois": [1, {"name": "a"}, {}]})
    assert (odd.bins, odd.regions) == ({}, ("a",))
    plans = ImageResults("stream", odd, {}).plans
    assert plans[0].length == 1 + 3 * MOST_SPOTS


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "y", "I", "sum", "name", "/", ".", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_FIELDS = st.dictionaries(
    st.sampled_from(
        ["spots", "az_int_profile", "az_int_profile_std", "roi_integrals", "real_time", "jf_info", "xfel_pulse_id"]
    ),
    _ANYTHING,
)
_STARTS = st.dictionaries(
    st.sampled_from(["max_spot_count", "az_int_bin_to_q", "az_int_bin_to_phi", "rois"]), _ANYTHING
)


@given(_STARTS, _FIELDS, _FIELDS)
def test_whatever_comes_a_vector_fits_its_plan(first: dict[str, Any], one: dict[str, Any], two: dict[str, Any]) -> None:
    made = ImageResults("stream", announced_results(first), one)
    lengths = {plan.source: plan.length for plan in made.plans}
    for fields in (one, two):
        for source, vector in made.vectors(fields):
            assert vector.shape == (lengths[source],)


@given(_ANYTHING)
def test_a_scalar_is_finite_or_none(value: Any) -> None:
    number = scalar(value)
    assert number is None or np.isfinite(number)

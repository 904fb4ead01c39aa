"""Formats and layout: every pixel of every packet has one place, for any detector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.formats import HEADER, pack_pixels, read_headers, unpack_pixels
from sisockdaq.detector.layout import Layout, pixel_index


def test_header_fields_lie_where_the_standard_says():
    offsets = {name: HEADER.fields[name][1] for name in HEADER.names}
    assert offsets == {
        "frame_number": 0, "exposure": 8, "packet_number": 12, "bunch_id": 16, "timestamp": 24, "module_id": 32,
        "row": 34, "column": 36, "spec2": 38, "spec3": 40, "spec4": 44, "detector_type": 46, "version": 47,
    }  # fmt: skip


def test_headers_are_views():
    data = bytearray(2 * 60)
    read_headers(memoryview(data), 60)["packet_number"] = [1, 2]
    assert data[60 + 12] == 2


def test_low_nibble_comes_first():
    np.testing.assert_array_equal(unpack_pixels(b"\x21\xf3", 4), [1, 2, 3, 15])


@given(st.sampled_from([4, 8, 16, 32]), st.data())
@settings(max_examples=30)
def test_pixels_survive_packing(depth, data):
    values = data.draw(
        st.lists(st.integers(0, 2**depth - 1), min_size=2, max_size=16).filter(lambda v: len(v) % 2 == 0)
    )
    pixels = np.array(values, np.uint32)
    np.testing.assert_array_equal(unpack_pixels(pack_pixels(pixels, depth).tobytes(), depth), pixels)


def test_a_pixel_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="16 does not fit into 4 bits"):
        pack_pixels(np.array([16, 0]), 4)


@st.composite
def detectors(draw):
    mirror_x, mirror_y = draw(st.booleans()), draw(st.booleans())

    def place(x, y, width, height):
        x0, x1 = (x + width - 1, x) if mirror_x else (x, x + width - 1)
        y0, y1 = (y + height - 1, y) if mirror_y else (y, y + height - 1)
        return x0, y0, x1, y1

    apart = draw(st.integers(0, 9))
    if draw(st.booleans()):
        rows = 8 * draw(st.integers(1, 6))
        places = {0: place(3, 5, 1024, rows), 1: place(3 + 1024 + apart, 5, 1024, rows)}
        return DetectorOptions(
            model="jungfrau",
            readout_rows=rows,
            interfaces=draw(st.sampled_from([1, 2])),
            module_positions=places,
            gap_value=7,
        )
    places = {0: place(0, 2, 514, 256), 1: place(514 + apart, 2, 514, 256)}
    depth, speed = draw(st.sampled_from([4, 8, 16, 32])), draw(st.sampled_from([1, 10]))
    return DetectorOptions(model="eiger", bit_depth=depth, link_speed=speed, module_positions=places, gap_value=7)


@given(detectors())
@settings(max_examples=25, deadline=None)
def test_every_pixel_has_one_place_inside_its_module(options):
    covered = np.zeros(options.shape, np.uint8)
    for stream in range(options.streams):
        index = pixel_index(options, stream)
        assert index.shape == (options.packets_per_stream, options.payload_bytes * 8 // options.bit_depth)
        np.add.at(covered.reshape(-1), index, 1)
    assert covered.max() == 1
    gap = 2 * 256 * len(options.positions) if options.model == "eiger" else 0
    assert covered.sum() == len(options.positions) * options.tile[0] * options.tile[1] - gap


@given(detectors())
@settings(max_examples=15, deadline=None)
def test_segments_tell_the_same_places(options):
    layout = Layout.of(options)
    for packet in range(0, options.packets_per_frame, 5):
        stream, number = divmod(packet, options.packets_per_stream)
        np.testing.assert_array_equal(layout.pixels(packet), pixel_index(options, stream)[number])


def test_mirrored_rows_run_upward_and_chips_have_a_gap():
    options = DetectorOptions(model="eiger", bit_depth=16, module_positions={0: (0, 255, 513, 0)})
    index = pixel_index(options, 0)
    assert divmod(int(index[0, 0]), 514) == (255, 0)
    assert divmod(int(index[0, 255]), 514) == (255, 255)
    assert divmod(int(index[0, 256]), 514) == (255, 258)
    assert divmod(int(index[0, 512]), 514) == (254, 0)


def test_halves_of_two_interfaces():
    options = DetectorOptions(model="jungfrau", interfaces=2)
    assert pixel_index(options, 0)[0, 0] == 0
    assert pixel_index(options, 1)[0, 0] == 256 * 1024


def test_whole_rows_are_one_segment():
    layout = Layout.of(DetectorOptions(model="jungfrau"))
    assert np.diff(layout.first).tolist() == [1] * 128
    assert layout.direct.all()

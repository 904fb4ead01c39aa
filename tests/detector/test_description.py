"""The detector's section of a site file; expected figures from contracts/detector-udp.md and data/README.md."""

from __future__ import annotations

import math

import pytest

from sisockdaq.detector.description import DetectorOptions, Geometry, eiger_position
from sisockdaq.errors import ConfigurationError, GeometryError


def test_jungfrau_one_interface():
    options = DetectorOptions(model="jungfrau", modules=2)
    assert options.shape == (1024, 1024)
    assert options.dtype == "<u2"
    assert (options.streams, options.packets_per_frame, options.datagram_bytes) == (2, 256, 8240)
    assert options.fill == 65535
    assert options.title == "JUNGFRAU 1024×1024, 2 modules"


def test_jungfrau_two_interfaces_number_packets_alike():
    options = DetectorOptions(model="jungfrau", interfaces=2)
    assert (options.streams, options.packets_per_stream) == (2, 64)
    assert [options.first_packet(stream) for stream in range(2)] == [0, 0]


def test_jungfrau_partial_readout_keeps_the_middle_packets():
    options = DetectorOptions(model="jungfrau", readout_rows=256)
    assert (options.first_packet(0), options.packets_per_stream) == (32, 64)
    assert options.shape == (256, 1024)
    halves = DetectorOptions(model="jungfrau", readout_rows=256, interfaces=2)
    assert [halves.first_packet(stream) for stream in range(2)] == [32, 0]
    assert halves.packets_per_stream == 32


@pytest.mark.parametrize(
    ("depth", "packets", "dtype"), [(4, 16, "u1"), (8, 32, "u1"), (16, 64, "<u2"), (32, 128, "<u4")]
)
def test_eiger_depths(depth, packets, dtype):
    options = DetectorOptions(model="eiger", bit_depth=depth)
    assert (options.streams, options.packets_per_stream, options.datagram_bytes) == (4, packets, 4144)
    assert options.dtype == dtype
    slow = DetectorOptions(model="eiger", bit_depth=depth, link_speed=1)
    assert (slow.packets_per_stream, slow.datagram_bytes) == (16 * depth, 1072)


def test_eiger_9m_positions():
    places = {
        i: eiger_position(row, column) for i, (row, column) in enumerate((r, c) for r in range(12) for c in range(6))
    }
    options = DetectorOptions(model="eiger", bit_depth=32, module_positions=places)
    assert options.shape == (3264, 3106)
    assert (options.streams, options.packets_per_frame, options.module_count) == (72, 9216, 18)
    assert places[0] == (0, 255, 513, 0)
    assert places[6 + 3] == (1038 + 516, 258, 1038 + 516 + 513, 513)


def test_half_an_eiger_module():
    options = DetectorOptions(model="eiger", module_positions={"0": [0, 255, 513, 0], "1": [516, 255, 1029, 0]})
    assert (options.shape, options.streams, options.module_count) == ((256, 1030), 2, 1)


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ({"model": "eiger", "bit_depth": 12}, "12-bit"),
        ({"model": "eiger", "bit_depth": 7}, "7 is not a bit depth"),
        ({"model": "jungfrau", "bit_depth": 32}, "bit_depth 16, not 32"),
        ({"model": "eiger", "interfaces": 2}, "for JUNGFRAU"),
        ({"model": "jungfrau", "readout_rows": 100}, "multiple of 8"),
        ({"model": "jungfrau", "module_positions": {0: (0, 0, 1023, 510)}}, "512 × 1024"),
        ({"model": "jungfrau", "module_positions": {1: (0, 0, 1023, 511)}}, "keys 0 to"),
        ({"model": "jungfrau", "module_positions": {0: (0, -1, 1023, 510)}}, "negative"),
        ({"model": "jungfrau", "modules": 3, "module_positions": {0: (0, 0, 1023, 511)}}, "3 modules have 3"),
        (
            {"model": "jungfrau", "module_positions": {0: (0, 0, 1023, 511), 1: (1000, 500, 2023, 1011)}},
            "modules 0 and 1 overlap",
        ),
        ({"model": "jungfrau", "fill_value": 65536}, "does not fit into uint16"),
        ({"model": "jungfrau", "module_ids": [1, 2]}, "2 entries for 1 streams"),
        ({"model": "pilatus"}, "jungfrau"),
        ({"model": "jungfrau", "module": 2}, "module"),
    ],
)
def test_mistakes_are_named(mistake, reason):
    with pytest.raises(ConfigurationError, match=reason):
        DetectorOptions.checked(**mistake)


PONI = """# Nota: C-Order, 1 refers to the Y axis, 2 to the X axis
poni_version: 2.1
Detector: Jungfrau
Detector_config: {}
Distance: 0.2
Poni1: 0.038
Poni2: 0.039
Rot1: 0.01
Rot2: -0.02
Rot3: 0.0
Wavelength: 1e-10
"""


def test_beam_centre_of_a_tilted_detector_is_that_of_pyfai():
    pyfai = pytest.importorskip("pyFAI.geometry")
    geometry = Geometry.of_poni(PONI)
    meta = geometry.to_meta(75e-6)
    expected = pyfai.Geometry(
        0.2, 0.038, 0.039, 0.01, -0.02, 0.0, pixel1=75e-6, pixel2=75e-6, wavelength=1e-10
    ).getFit2D()
    assert math.isclose(meta["beam_center_x"], expected["centerX"], rel_tol=1e-9)
    assert math.isclose(meta["beam_center_y"], expected["centerY"], rel_tol=1e-9)
    assert math.isclose(meta["incident_energy"], 12398.42, rel_tol=1e-6)
    assert meta["incident_wavelength"] == pytest.approx(1.0)


def test_a_broken_poni_is_refused():
    with pytest.raises(GeometryError, match="wavelength"):
        Geometry.of_poni("Distance: 0.1\nPoni1: 0\nPoni2: 0\n")
    with pytest.raises(GeometryError, match="distance"):
        Geometry.of_poni(PONI.replace("Distance: 0.2", "Distance: far"))


def test_meta_has_the_names_of_stream_v2():
    meta = DetectorOptions(model="eiger", name="E-18-0101").to_meta(Geometry.of_poni(PONI))
    assert meta["detector_description"] == "E-18-0101"
    assert meta["pixel_size_x"] == 75e-6
    assert meta["detector_translation"] == [0.0, 0.0, 0.2]
    assert "saturation_value" not in meta

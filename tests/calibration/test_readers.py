"""Each kind of file, as those who make it write it; angles against pyFAI's and SAXSdog's own."""

from __future__ import annotations

import contextlib
import json
import math
import textwrap

import cbor2
import fabio
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.calibration import Geometry, Hints, check_geometry, from_saxsdog, from_start_message, read_geometry
from sisockdaq.errors import GeometryError
from sisockdaq.nexus.layout import ImagePlan
from sisockdaq.nexus.nxmx import MasterContent, master_tree
from sisockdaq.saxsdog.binning import scattering_angle
from sisockdaq.saxsdog.calibration import read_calibration
from tests.saxsdog.literal import calibration

from .places import PIXEL, SHAPE, angles_of

PRINTED = """\
INFO: Refined Beam centre (X/Y mm) =   84.28000   137.6000
INFO: Refined Beam centre (X/Y pixels) =   490.0000   800.0000
INFO: Refined sample to detector distance =   1200.500     mm
INFO: Refined wavelength =   1.540000     Angstroms
INFO: Refined tilt plane rotation angle =   73.59509     degrees
INFO: Refined tilt angle =  -10.00601     degrees
"""


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return path


# Fit2D


def test_what_fit2d_prints_is_read_with_the_pixels_from_its_two_centres(tmp_path):
    first = PRINTED.replace("490.0000", "111.0000").replace("-10.00601", "0.000")
    found = read_geometry(written(tmp_path, "fit2d.log", first + PRINTED))
    assert found.beam_centre == pytest.approx((490, 800))
    assert found.pixel_size == (172e-6, 172e-6)
    assert found.wavelength == 1.54e-10
    assert found.beam_distance == pytest.approx(1.2005)
    assert math.degrees(found.tilt) == pytest.approx(10.00601)


def test_best_fits_of_a_calibration_need_the_distance_and_the_pixels(tmp_path):
    path = written(
        tmp_path,
        "fit2d.log",
        """\
        INFO: Best fit beam centre (X/Y pixels) =   388.2765      807.8745
        INFO: Best fit angle of tilt plane rotation (degrees) =   73.59509
        INFO: Best fit angle of tilt (degrees) =  -10.00601
        """,
    )
    with pytest.raises(GeometryError, match="no directDist") as caught:
        read_geometry(path)
    assert "wavelength" in caught.value.remedy
    path.write_text(path.read_text() + "directDist = 1000\n")
    with pytest.raises(GeometryError, match="how large a pixel is") as caught:
        read_geometry(path)
    assert "--pixel-size" in caught.value.remedy
    assert read_geometry(path, Hints(pixel_size=PIXEL)).beam_centre == pytest.approx((388.2765, 807.8745))
    known = read_geometry(path, Hints(detector="Pilatus 1M"))
    assert (known.pixel_size, known.shape) == (PIXEL, (1043, 981))


@pytest.mark.parametrize("form", ["lines", "json", "printed"])
def test_fit2ds_parameters_in_the_forms_of_pyfai(tmp_path, form):
    geometry = Geometry.of_beam(0.25, (100.125, 60.5), PIXEL, tilt=0.1, rotation=0.7, wavelength=1e-10, shape=SHAPE)
    parameters = geometry.to_fit2d()
    text = {
        "lines": "".join(f"{name} = {value!r}\n" for name, value in parameters.items()),
        "json": json.dumps(parameters),
        "printed": str(geometry.to_pyfai().getFit2D()),
    }[form]
    found = read_geometry(written(tmp_path, "parameters", text), Hints(pixel_size=PIXEL, shape=SHAPE))
    np.testing.assert_allclose(angles_of(found), angles_of(geometry), atol=1e-4 if form == "printed" else 1e-7)
    assert found.wavelength == pytest.approx(1e-10)


def test_y_may_count_from_the_last_row(tmp_path):
    path = written(tmp_path, "fit2d.log", PRINTED)
    found = read_geometry(path, Hints(from_bottom=True, shape=(1043, 981)))
    assert found.beam_centre == pytest.approx((490, 243))
    upright = read_geometry(path, Hints(shape=(1043, 981)))
    mirrored = found.to_pyfai().center_array((1043, 981), "2th_rad")[::-1]
    np.testing.assert_allclose(mirrored, upright.to_pyfai().center_array((1043, 981), "2th_rad"), atol=1e-9)
    with pytest.raises(GeometryError, match="from which row"):
        read_geometry(path, Hints(from_bottom=True))


# SAXSdog


@settings(max_examples=30, deadline=None)
@given(st.floats(-30, 30), st.floats(-360, 360), st.floats(-50, 250), st.floats(-50, 250), st.floats(50, 3000))
def test_a_saxsdog_calibration_sees_each_pixel_under_saxsdogs_angle(tilt, rotation, y, x, distance):
    data = calibration(
        shape=SHAPE,
        Geometry__Tilt={"TiltRotDeg": rotation, "TiltAngleDeg": tilt},
        Geometry__BeamCenter=[y, x],
        Geometry__DedectorDistanceMM=distance,
    )
    geometry = read_calibration(data).geometry
    rows, columns = np.indices(SHAPE)
    down, along = rows + 0.5 - (SHAPE[0] - y), columns + 0.5 - x
    theirs = scattering_angle(np.hypot(down, along) * 0.172, np.arctan2(down, along), geometry)
    np.testing.assert_allclose(angles_of(from_saxsdog(data)), theirs, atol=3e-7)


def test_a_saxsdog_file_is_known_by_its_content(tmp_path):
    data = calibration(shape=(1043, 981), Geometry__BeamCenter=[800.0, 400.0])
    found = read_geometry(written(tmp_path, "cal.json", json.dumps(data)))
    assert (found.kind, found.beam_centre, found.shape) == ("SAXSdog calibration", (400.0, 243.0), (1043, 981))
    assert found.wavelength == 1.54e-10
    del data["Masks"]
    assert read_geometry(written(tmp_path, "cal.json", json.dumps(data))).distance == found.distance
    del data["Geometry"]["BeamCenter"]
    with pytest.raises(GeometryError, match=r"Geometry\.BeamCenter: is missing"):
        read_geometry(written(tmp_path, "cal.json", json.dumps(data)))


# Stream V2

START = {
    "type": "start",
    "beam_center_x": 1553.5,
    "beam_center_y": 1621.25,
    "detector_description": "Dectris EIGER2 9M",
    "detector_translation": [0.0, 0.0, 0.321],
    "image_size_x": 3108,
    "image_size_y": 3262,
    "incident_energy": 12398.4198,
    "incident_wavelength": 1.0,
    "pixel_size_x": 75e-6,
    "pixel_size_y": 75e-6,
    "pixel_mask": {"threshold_1": b"\0" * 16},
}


def test_a_start_message_in_cbor_and_in_json(tmp_path):
    path = tmp_path / "start"
    path.write_bytes(cbor2.dumps(START))
    found = read_geometry(path)
    assert found.kind == "Stream V2 start message"
    assert found.distance == 0.321
    assert found.beam_centre == pytest.approx((1553.5, 1621.25))
    assert (found.shape, found.pixel_size, found.wavelength) == ((3262, 3108), (75e-6, 75e-6), 1e-10)
    assert found.energy == 12398.4198
    plain = {key: value for key, value in START.items() if key != "pixel_mask"}
    assert read_geometry(written(tmp_path, "start.json", json.dumps(plain))) == found.changed(
        origin=str(tmp_path / "start.json")
    )


def test_jungfraujochs_dialect_and_other_names_are_understood():
    message = {key: value for key, value in START.items() if not key.startswith(("detector_tr", "incident"))}
    found = from_start_message(
        {**message, "user_data": {"detector_distance": 0.2}, "photon_energy": 12398.419843320026}
    )
    assert (found.distance, found.wavelength, found.energy) == (0.2, pytest.approx(1e-10), None)


def test_a_start_message_that_says_too_little_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(GeometryError, match=r"no detector_distance, beam_center_x, beam_center_y, pixel_size_x"):
        from_start_message({"type": "start"})
    with pytest.raises(GeometryError, match='a message "image"'):
        from_start_message({"type": "image"})
    with pytest.raises(GeometryError, match="beam_center_x is 'middle'"):
        from_start_message({**START, "beam_center_x": "middle"})


# CBF

HEADER = """
# Detector: PILATUS 100K, S/N 1-0109
# Pixel_size 172e-6 m x 172e-6 m
# Silicon sensor, thickness 0.000320 m
# Wavelength 1.03320 A
# Detector_distance 0.50000 m
# Detector_Voffset 0.00000 m
# Beam_xy (277.00, 46.50) pixels
# Start_angle 0.0000 deg.
"""


def test_the_header_of_a_cbf(tmp_path):
    path = tmp_path / "image_00001.cbf"
    image = np.zeros(SHAPE, np.int32)
    fabio.cbfimage.CbfImage(data=image, header={"_array_data.header_contents": HEADER}).write(str(path))
    found = read_geometry(path)
    assert (found.kind, found.shape, found.pixel_size, found.distance) == ("CBF header", SHAPE, PIXEL, 0.5)
    assert found.beam_centre == pytest.approx((277.0, 46.5))
    assert found.wavelength == pytest.approx(1.0332e-10)
    assert found.detector.startswith("PILATUS 100K")
    half = path.read_bytes()[:600]
    path.write_bytes(half)
    with pytest.raises(GeometryError, match="no whole CBF"):
        read_geometry(path)


# NXmx

META = {
    "beam_center_x": 250.5,
    "beam_center_y": 100.25,
    "detector_distance": 0.321,
    "incident_wavelength": 1.25,
    "pixel_size_x": 172e-6,
    "pixel_size_y": 172e-6,
    "detector_description": "PILATUS 100K",
}


def put(group, node):
    for name, value in node.attributes.items():
        group.attrs[name] = value
    for name, item in getattr(node, "items", {}).items():
        if hasattr(item, "items"):
            put(group.create_group(name), item)
        elif hasattr(item, "value"):
            made = group.create_dataset(name, data=item.value)
            for key, value in item.attributes.items():
                made.attrs[key] = value


@pytest.fixture
def master(tmp_path):
    path = tmp_path / "run_master.h5"
    content = MasterContent("run", ImagePlan("detector", SHAPE, "<u4", 0), META)
    with h5py.File(path, "w") as file:
        put(file, master_tree(content))
    return path


def test_a_master_of_ours(master):
    found = read_geometry(master)
    assert (found.kind, found.shape, found.pixel_size, found.distance) == ("NXmx file", SHAPE, PIXEL, 0.321)
    assert found.beam_centre == pytest.approx((250.5, 100.25))
    assert found.wavelength == pytest.approx(1.25e-10)
    assert found.energy == pytest.approx(12398.4198 / 1.25)
    assert not found.notes


def test_units_are_heeded_and_their_absence_is_noted(master):
    with h5py.File(master, "r+") as file:
        detector = file["entry/instrument/detector"]
        detector["distance"][()] = 321.0
        detector["distance"].attrs["units"] = "mm"
        del detector["x_pixel_size"].attrs["units"]
    found = read_geometry(master)
    assert found.distance == pytest.approx(0.321)
    assert found.notes == ("/entry/instrument/detector/x_pixel_size has no units: m was taken",)
    with h5py.File(master, "r+") as file:
        file["entry/instrument/detector/distance"].attrs["units"] = "furlong"
    with pytest.raises(GeometryError, match="furlong"):
        read_geometry(master)


@settings(max_examples=15, deadline=None)
@given(st.floats(-50, 50), st.floats(-30, 30), st.floats(-180, 180), st.sampled_from([1.0, -1.0]))
def test_a_leaning_module_is_where_its_transformations_put_it(tmp_path_factory, arm, lean, turn, upwards):
    """The chain, multiplied out here pixel by pixel: turn in its plane, lean, shift, and an arm around y."""

    def rotation(axis, degrees):
        x, y, z = axis
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        angle = math.radians(degrees)
        return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)

    path = tmp_path_factory.mktemp("nxmx") / "leaning.h5"
    offset = np.array([0.03, 0.01 * upwards, 0.0])
    fast, slow = np.array([-1.0, 0, 0]), np.array([0, -upwards, 0])
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        detector = entry.create_group("instrument/detector")
        for name in ("x_pixel_size", "y_pixel_size"):
            detector[name] = 0.172
            detector[name].attrs["units"] = "mm"
        chain = [
            ("arm", arm, "deg", "rotation", (0, 1, 0), (0, 0, 0), "."),
            ("away", 200.0, "mm", "translation", (0, 0, 1), (0, 0, 0), "arm"),
            ("lean", math.radians(lean), "rad", "rotation", (1, 0, 0), (0, 0, 0), "away"),
            ("turn", turn, "deg", "rotation", (0, 0, 1), (0, 0, 0), "lean"),
        ]
        module = detector.create_group("module")
        module.attrs["NX_class"] = "NXdetector_module"
        module["data_size"] = SHAPE
        last = "/entry/instrument/detector/transformations/turn"
        chain += [
            ("module/module_offset", 0.0, "m", "translation", (1, 0, 0), offset, last),
            ("module/fast_pixel_direction", 172e-6, "m", "translation", fast, (0, 0, 0), "module_offset"),
            ("module/slow_pixel_direction", 172e-6, "m", "translation", slow, (0, 0, 0), "module_offset"),
        ]
        for name, value, unit, kind, vector, shift, on in chain:
            item = detector.create_dataset(name if "/" in name else f"transformations/{name}", data=value)
            item.attrs.update(
                {"units": unit, "transformation_type": kind, "vector": vector, "offset": shift, "depends_on": on}
            )
        if not max(abs(arm), abs(lean)) > 1e-3:
            detector["distance"], detector["beam_center_x"], detector["beam_center_y"] = (
                0.2,
                0.03 / 172e-6,
                0.01 / 172e-6,
            )
    matrix = rotation((0, 1, 0), arm)
    local = rotation((1, 0, 0), lean) @ rotation((0, 0, 1), turn)
    rows, columns = (np.indices(SHAPE) + 0.5) * 172e-6
    places = offset + rows[..., None] * slow + columns[..., None] * fast
    places = (places @ local.T + np.array([0, 0, 0.2])) @ matrix.T
    expected = np.arctan2(np.hypot(places[..., 0], places[..., 1]), places[..., 2])
    found = read_geometry(path)
    np.testing.assert_allclose(angles_of(found), expected, atol=3e-5 if max(abs(arm), abs(lean)) < 1e-3 else 3e-7)


def test_a_chain_that_cannot_be_followed_is_left_alone_and_noted(master):
    with h5py.File(master, "r+") as file:
        module = file["entry/instrument/detector/module"]
        module["module_offset"].attrs["depends_on"] = "fast_pixel_direction"
        module["fast_pixel_direction"].attrs["depends_on"] = "module_offset"
    found = read_geometry(master)
    assert found.beam_centre == pytest.approx((250.5, 100.25))
    assert "circle" in found.notes[0]


def test_disagreement_of_centre_and_directions_is_noted(master):
    with h5py.File(master, "r+") as file:
        module = file["entry/instrument/detector/module"]
        module["slow_pixel_direction"].attrs["vector"] = [0.0, -math.cos(0.1), math.sin(0.1)]
    found = read_geometry(master)
    assert found.tilt == pytest.approx(0.1)
    assert len(found.notes) == 1
    with h5py.File(master, "r+") as file:
        file["entry/instrument/detector/beam_center_x"][()] = 10.0
    assert "beam_center says (10.0, 100.2)" in read_geometry(master).notes[1]


# Neither


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "none of the files"),
        (b"hello: world\n", "none of the files"),
        (b"\x00\x01\x02\xff" * 9, "none of the files"),
        (b"{not json", "is not JSON"),
        (b"\xa1\x64type", "no message in CBOR"),
        (b"Distance: far\nPoni1: 0\nPoni2: 0\n", "is not a PONI file"),
        (b"Distance: 1\nPoni1: 0\n", "is not a PONI file"),
        (b"###CBF: VERSION 1.5\n", "no whole CBF"),
    ],
)
def test_what_is_none_of_these_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "what"
    path.write_bytes(content)
    with pytest.raises(GeometryError, match=reason):
        read_geometry(path)


def test_a_missing_file_and_an_unknown_detector(tmp_path):
    with pytest.raises(GeometryError, match="no such file") as caught:
        read_geometry(tmp_path / "nothing.poni")
    assert "PONI" in caught.value.remedy
    with pytest.raises(GeometryError, match='no detector "Abacus"'):
        read_geometry(tmp_path / "nothing.poni", Hints(detector="Abacus"))
    (tmp_path / "empty.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 90)
    with pytest.raises(GeometryError, match="cannot be read"):
        read_geometry(tmp_path / "empty.h5")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["Geometry", "directDist", "centerX", "centerY", "poni1", "dist", "poni", "type", "wavelength", "tilt",
        "beam_center_x", "beam_center_y", "detector_distance", "detector_translation", "pixel_size_x", "image_size_x",
        "image_size_y", "incident_energy", "user_data", "detector_description", "poni_version", "Masks"]  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=12)
PLAIN = {key: value for key, value in START.items() if key != "pixel_mask"}
SPOILED = st.builds(
    lambda base, changes: {**base, **changes},
    st.sampled_from([PLAIN, calibration(), Geometry.of_beam(1.0, (9, 9), PIXEL, shape=SHAPE).to_fit2d()]),
    st.dictionaries(st.sampled_from([*KEYS, "centerY", "Wavelength", "pixelX"]), JSON, max_size=2),
)
LINES = st.lists(
    st.sampled_from(
        [*PRINTED.splitlines(), "directDist = 1e999", "centerX: nan", "Distance: 1", "Poni1: x", "tilt = "]
    ),
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=80)
    | (OBJECTS | SPOILED).map(lambda found: json.dumps(found).encode())
    | (OBJECTS | SPOILED).map(cbor2.dumps)
    | LINES.map(lambda lines: "\n".join(lines).encode())
)
def test_whatever_a_file_holds_it_is_read_or_refused_with_a_reason(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(content)
    with contextlib.suppress(GeometryError):
        assert check_geometry(read_geometry(path, Hints(pixel_size=PIXEL))) is not None


@pytest.mark.parametrize("value", [np.nan, -1.0, "words", [1.0, 2.0], np.zeros(0), b"bytes", True, h5py.Empty("f8")])
@pytest.mark.parametrize(
    "name",
    ["detector/distance", "detector/beam_center_x", "detector/x_pixel_size", "beam/incident_wavelength",
     "detector/detectorSpecific/y_pixels_in_detector", "detector/description", "detector/module/module_offset"],
)  # fmt: skip
def test_whatever_a_master_holds_it_is_read_or_refused_with_a_reason(master, name, value):
    with h5py.File(master, "r+") as file:
        instrument = file["entry/instrument"]
        attributes = dict(instrument[name].attrs)
        del instrument[name]
        instrument[name] = value
        instrument[name].attrs.update(attributes)
    with contextlib.suppress(GeometryError):
        assert check_geometry(read_geometry(master)) is not None

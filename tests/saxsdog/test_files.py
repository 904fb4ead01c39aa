"""Files in and out: pictures against fabio, masks against bytes made here, ``.chi`` text against numpy's."""

import io
import json
import struct

import fabio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import MaskError
from sisockdaq.saxsdog._decimal import rows_text
from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.chi import chi_text, write_chi
from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.masks import mask_from_attachment, read_mask
from sisockdaq.saxsdog.pictures import PictureReader, PictureUnfinished, is_picture, pictures_below, pilatus_tiff
from tests.saxsdog import literal

SHAPE = (40, 31)


def counts(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(-2, 1 << 20, shape).astype(np.int32)


# Numbers and .chi files.


def savetxt(columns):
    out = io.BytesIO()
    np.savetxt(out, np.asarray(columns).T, fmt="%.18e", newline="\n ")
    return out.getvalue()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3), min_size=1, max_size=20))
def test_any_number_is_written_as_numpy_writes_it(rows):
    columns = np.array(rows).T
    assert rows_text(columns) == savetxt(columns)


def test_edges_of_rounding_and_of_the_range_are_written_as_numpy_writes_them():
    tens = np.array([float(f"1e{power}") for power in range(-323, 309)])
    odd = 2 * np.random.default_rng(0).integers(0, 1 << 52, 5_000) + 1
    halves = odd * 2.0 ** np.random.default_rng(1).integers(-90, 90, odd.size)  # ties of the last digit among them
    words = np.frombuffer(np.random.default_rng(2).bytes(8 * 10_000), float)
    many = [
        tens,
        np.nextafter(tens, 0),
        np.nextafter(tens, np.inf),
        halves,
        words,
        [0.0, -0.0, 5e-324, 2.0**63, 2.0**64],
    ]
    for values in many:
        assert rows_text(np.atleast_2d(values)) == savetxt(np.atleast_2d(values))


def test_a_chi_file_is_saxsdogs_byte_for_byte(tmp_path):
    conf = literal.calibration(
        Slices=[
            {
                "Direction": "y",
                "Plane": "Vertical",
                "CutPosition": 9,
                "CutMargin": 1,
                "IncidentAngle": 0.1,
                "MaskRef": 0,
            }
        ]
    )
    reduction = Reduction(read_calibration(conf), [np.random.default_rng(0).random(SHAPE) < 0.7])
    radial, cut = reduction.reduce(np.abs(counts()))
    for curve, lines in (
        (radial, [json.dumps(conf), json.dumps(radial.parameters), json.dumps(radial.columns)]),
        (cut, [json.dumps(conf), json.dumps(cut.columns), "Intensity"]),
    ):
        wanted = io.BytesIO()
        header = "\n".join([*lines, f"   {curve.array.shape[1]}"])
        np.savetxt(
            wanted, curve.array.T, fmt="%.18e", delimiter=" ", newline="\n ", header=header, footer="", comments=""
        )
        assert chi_text(curve) == wanted.getvalue() == chi_text(curve, reduction.header)
    assert set(json.loads(chi_text(radial).splitlines()[1])) == {"I0", "I1", "I2"}
    write_chi(tmp_path / "a.chi", chi_text(radial))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "a.chi", skiprows=4), radial.array.T)
    assert [path.name for path in tmp_path.iterdir()] == ["a.chi"]


def test_a_chi_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.chi").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_chi(tmp_path / "a.chi", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.chi"]


# Pictures.


@pytest.mark.parametrize("dtype", ["int32", "uint32", "uint16", "uint8", "int16"])
def test_a_tiff_is_read_as_fabio_reads_it(tmp_path, dtype):
    reader = PictureReader()
    for number in range(3):
        image = (counts(number) % 200).astype(dtype)
        path = tmp_path / f"{number}.tif"
        fabio.tifimage.TifImage(image).write(str(path))
        read = reader.read(path).image
        with fabio.open(str(path)) as opened:
            np.testing.assert_array_equal(read, opened.data)


def test_a_pilatus_picture_is_read_fast_with_its_time(tmp_path, monkeypatch):
    reader = PictureReader()
    for number in range(3):
        path = tmp_path / f"{number}.tif"
        path.write_bytes(pilatus_tiff(counts(number), f"2026-11-21T12:00:0{number}.250"))
        with fabio.open(str(path)) as opened:
            np.testing.assert_array_equal(opened.data, counts(number))
        picture = reader.read(path)
        np.testing.assert_array_equal(picture.image, counts(number))
        assert (picture.image.dtype, picture.time) == (np.int32, f"2026-11-21T12:00:0{number}.250")
        # From the second one on, fabio is not asked.
        monkeypatch.setattr("sisockdaq.saxsdog.pictures.read_image", None)


def test_a_layout_that_fabio_reads_otherwise_is_never_read_fast(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_bytes(pilatus_tiff(counts()))
    monkeypatch.setattr("sisockdaq.saxsdog.pictures.read_image", lambda path: (counts(7), 1))
    reader = PictureReader()
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(path).image, counts(7))


@pytest.mark.parametrize("suffix", ["cbf", "edf"])
def test_other_formats_are_read_by_fabio(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    kind = {"cbf": fabio.cbfimage.CbfImage, "edf": fabio.edfimage.EdfImage}[suffix]
    kind(data=counts()).write(str(path))
    np.testing.assert_array_equal(PictureReader().read(path).image, counts())


@pytest.mark.parametrize("suffix", ["tif", "cbf", "edf"])
def test_a_file_cut_off_anywhere_is_unfinished(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "tif":
        whole.write_bytes(pilatus_tiff(counts()))
    else:
        kind = {"cbf": fabio.cbfimage.CbfImage, "edf": fabio.edfimage.EdfImage}[suffix]
        kind(data=counts()).write(str(whole))
    reader, content = PictureReader(), whole.read_bytes()
    reader.read(whole)
    cut = tmp_path / f"cut.{suffix}"
    for size in (0, 3, 9, 200, 600, len(content) // 2, len(content) - 600):
        cut.write_bytes(content[:size])
        with pytest.raises(PictureUnfinished):
            reader.read(cut)
    cut.write_bytes(content)
    np.testing.assert_array_equal(reader.read(cut).image, counts())


def test_a_missing_picture_is_told_as_missing(tmp_path):
    for suffix in ("tif", "edf"):
        with pytest.raises(FileNotFoundError):
            PictureReader().read(tmp_path / f"none.{suffix}")


def test_pictures_are_told_by_their_names_and_found_in_order(tmp_path):
    assert all(map(is_picture, ["a.tif", "A.TIF", "b.tiff", "/x/c.cbf", "d.edf"]))
    assert not any(map(is_picture, ["a.chi", ".a.tif", "tif", "a.tif.part", "a.log"]))
    for name in ("b/2.tif", "a.tif", "b/1.tif", "b/1.chi", "z.cbf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.removeprefix(f"{tmp_path}/") for path in pictures_below(str(tmp_path))]
    assert found == ["a.tif", "b/1.tif", "b/2.tif", "z.cbf"]


# Masks.


def fit2d(invalid):
    """Return a Fit2D mask: rows from the bottom, bits from the lowest, rows filled up to 32 bits, from byte 1024."""
    rows, columns = invalid.shape
    bits = np.zeros((rows, -(-columns // 32) * 32), bool)
    bits[:, :columns] = np.flipud(invalid)
    head = bytearray(1024)
    head[0:16] = b"M\0\0\0A\0\0\0S\0\0\0K\0\0\0"
    struct.pack_into("<ii", head, 16, columns, rows)
    return bytes(head) + np.packbits(bits, bitorder="little").tobytes()


def test_a_fit2d_mask_is_turned_and_means_what_is_invalid(tmp_path):
    invalid = np.random.default_rng(0).random((12, 37)) < 0.3
    content = fit2d(invalid)
    (tmp_path / "a.msk").write_bytes(content)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.msk"), ~invalid)
    np.testing.assert_array_equal(mask_from_attachment("C:\\x\\a.msk", content.decode("latin-1")), ~invalid)


def test_other_masks_stay_as_they_stand(tmp_path):
    invalid = np.random.default_rng(0).random((12, 37)) < 0.3
    fabio.tifimage.TifImage(invalid.astype(np.uint8)).write(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), ~invalid)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.exe", "x", "a.exe: .exe is no kind of mask"),
        ("a.msk", "nonsense", "^a.msk: cannot be read as a mask"),
        ("a.msk", "€", "holds a character that is no byte"),
        ("../../etc/passwd", "x", "no suffix is no kind of mask"),
    ],
)
def test_an_attachment_that_is_no_mask_is_refused_by_its_name(name, data, problem):
    with pytest.raises(MaskError, match=problem):
        mask_from_attachment(name, data)

"""The Stream V2 codec against messages put together by hand, against cbor2, and against its own reverse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cbor2
import h5py
import hdf5plugin
import numpy as np
import pytest
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.stream2 import (
    EncodedArray,
    EndMessage,
    ImageMessage,
    OtherMessage,
    StartMessage,
    decode,
    encode_end,
    encode_image,
    encode_start,
)

PIXELS = np.arange(12, dtype="<u2").reshape(3, 4)
TAGS = {"u1": 64, "<u2": 69, "<u4": 70, "<u8": 71, "i1": 72, "<i2": 77, "<i4": 78, "<i8": 79, "<f4": 85, "<f8": 86}
BIG_ENDIAN = {">u2": 65, ">u4": 66, ">u8": 67, ">i2": 73, ">i4": 74, ">i8": 75, ">f4": 81, ">f8": 82}


def filtered(pixels: np.ndarray[Any, Any], filters: Any) -> bytes:
    """Return what an HDF5 filter stores for an array."""
    with h5py.File("in-memory.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", data=pixels, chunks=pixels.shape, **filters)
        return bytes(dataset.id.read_direct_chunk((0,) * pixels.ndim)[1])


def an_image(data: Any, **more: Any) -> bytes:
    return cbor2.dumps(
        {"type": "image", "series_id": 5, "series_unique_id": "01G", "image_id": 9, "data": {"threshold_1": data}}
        | more
    )


def pixels_of(message: Any) -> np.ndarray[Any, Any]:
    assert isinstance(message, ImageMessage)
    (item,) = message.data.values()
    return item.array()


@pytest.mark.parametrize(("dtype", "tag"), [*TAGS.items(), *BIG_ENDIAN.items()])
def test_typed_arrays_of_rfc_8746(dtype: str, tag: int) -> None:
    pixels = PIXELS.astype(dtype)
    message = decode(an_image(CBORTag(40, [[3, 4], CBORTag(tag, pixels.tobytes())])))
    np.testing.assert_array_equal(pixels_of(message), PIXELS)
    assert pixels_of(message).dtype == np.dtype(dtype)


def test_column_major_arrays() -> None:
    message = decode(an_image(CBORTag(1040, [[3, 4], CBORTag(69, PIXELS.tobytes(order="F"))])))
    np.testing.assert_array_equal(pixels_of(message), PIXELS)
    out = np.zeros_like(PIXELS)
    assert isinstance(message, ImageMessage)
    assert message.data["threshold_1"].array(out) is out
    np.testing.assert_array_equal(out, PIXELS)


@pytest.mark.parametrize(
    ("name", "element", "filters"),
    [
        ("bslz4", 2, hdf5plugin.Bitshuffle(cname="lz4")),
        ("lz4", 0, hdf5plugin.LZ4()),
        ("bszstd", 2, hdf5plugin.Bitshuffle(cname="zstd")),
    ],
)
def test_compressed_pixels_are_the_hdf5_filters_chunks(name: str, element: int, filters: Any) -> None:
    pixels = np.random.default_rng(4).poisson(9, (37, 211)).astype("<u2")
    chunk = filtered(pixels, filters)
    message = decode(an_image(CBORTag(40, [[37, 211], CBORTag(69, CBORTag(56500, [name, element, chunk]))])))
    np.testing.assert_array_equal(pixels_of(message), pixels)
    assert isinstance(message, ImageMessage)
    assert message.data["threshold_1"].payload == chunk


def test_an_encoded_image_as_cbor2_reads_it() -> None:
    pixels = np.random.default_rng(4).poisson(9, (64, 300)).astype("<u4")
    message = encode_image(5, "01G", 9, {"threshold_1": pixels}, {"start_time": [1, 1000]})
    assert bytes(message[:3]) == b"\xd9\xd9\xf7"  # the self-describing tag, which DECTRIS's parser demands
    body = cbor2.loads(bytes(message))
    assert next(iter(body)) == "type"
    assert (body["type"], body["series_id"], body["series_unique_id"], body["image_id"]) == ("image", 5, "01G", 9)
    outer = body["data"]["threshold_1"]
    assert (outer.tag, list(outer.value[0]), outer.value[1].tag) == (40, [64, 300], 70)
    compressed = outer.value[1].value
    assert (compressed.tag, *compressed.value[:2]) == (56500, "bslz4", 4)
    assert compressed.value[2] == filtered(pixels, hdf5plugin.Bitshuffle(cname="lz4"))
    raw = cbor2.loads(bytes(encode_image(5, "01G", 9, {"threshold_1": pixels}, compression="none")))
    assert raw["data"]["threshold_1"].value[1].value == pixels.tobytes()


def test_start_and_end_messages() -> None:
    date = datetime(2026, 5, 4, 3, 2, 1, 500000, tzinfo=UTC)
    mask = np.zeros((3, 4), "<u4")
    fields = {
        "arm_date": date,
        "image_size_x": 4,
        "image_size_y": 3,
        "image_dtype": "uint16",
        "number_of_images": np.int64(100),
        "detector_translation": np.array([0.0, 0.0, 0.15]),
        "pixel_mask": {"threshold_1": mask},
        "goniometer": {"omega": {"increment": 0.1, "start": 0.0}},
        "user_data": {"note": "µ"},
    }
    message = decode(encode_start(StartMessage(5, "01G", fields)))
    assert isinstance(message, StartMessage)
    assert (message.series_id, message.series_unique_id, message.shape) == (5, "01G", (3, 4))
    assert (message.fields["arm_date"], message.fields["number_of_images"]) == (date, 100)
    assert message.fields["goniometer"] == fields["goniometer"]
    assert message.fields["user_data"] == {"note": "µ"}
    np.testing.assert_array_equal(message.fields["pixel_mask"]["threshold_1"].array(), mask)
    np.testing.assert_array_equal(message.fields["detector_translation"].array(), [0.0, 0.0, 0.15])
    assert decode(encode_end(EndMessage(5, "01G"))) == EndMessage(5, "01G")


def test_a_start_message_needs_no_field() -> None:
    assert decode(cbor2.dumps({"type": "start"})) == StartMessage(0, "", {})


def test_typed_arrays_without_dimensions_and_compressed_byte_strings() -> None:
    payload = filtered(np.frombuffer(b"a string in a dark wood " * 40, "u1"), hdf5plugin.LZ4())
    message = decode(
        cbor2.dumps(
            {
                "type": "start",
                "detector_translation": CBORTag(86, np.array([0.0, 0.0, 0.15]).tobytes()),
                "user_data": CBORTag(56500, ["lz4", 0, payload]),
            }
        )
    )
    assert isinstance(message, StartMessage)
    assert message.fields["detector_translation"].array().tolist() == [0.0, 0.0, 0.15]
    assert message.fields["user_data"] == b"a string in a dark wood " * 40


def test_times_are_fractions() -> None:
    message = decode(
        an_image(CBORTag(40, [[3, 4], CBORTag(69, PIXELS.tobytes())]), start_time=[3, 2], stop_time=[1, 0])
    )
    assert isinstance(message, ImageMessage)
    assert message.seconds("start_time") == 1.5
    assert message.seconds("stop_time") is None
    assert message.seconds("real_time") is None


def test_the_dialect_has_further_messages_and_keys() -> None:
    assert decode(cbor2.dumps({"type": "calibration", "data": 1})) == OtherMessage("calibration", {"data": 1})
    message = decode(cbor2.dumps({"type": "start", "magic_number": 828273, "unit_cell": {"a": 78.0}}))
    assert isinstance(message, StartMessage)
    assert message.fields == {"magic_number": 828273, "unit_cell": {"a": 78.0}}


GOOD = CBORTag(69, PIXELS.tobytes())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not a Stream V2 message"),
        (b"\xff", "not a Stream V2 message"),
        (cbor2.dumps([1, 2]), "no CBOR map"),
        (cbor2.dumps({"series_id": 1}), "no CBOR map"),
        (cbor2.dumps({"type": "weather"}), "unknown type “weather”"),
        (cbor2.dumps({"type": "start", "series_id": "five"}), "wrong type"),
        (cbor2.dumps({"type": "image", "image_id": 1}), "no data"),
        (cbor2.dumps({"type": "image", "data": {}}), "image_id"),
        (an_image("pixels"), "is not an array"),
        (an_image(CBORTag(40, [[3, 5], GOOD])), "holds 24 bytes"),
        (an_image(CBORTag(40, [[-3, -4], GOOD])), "impossible dimensions"),
        (an_image(CBORTag(40, [[3, 4], [1, 2]])), "without a typed array"),
        (an_image(CBORTag(40, [[3, 4], CBORTag(69, "text")])), "no byte string"),
        (an_image(CBORTag(40, [[3, 4], CBORTag(69, CBORTag(56500, ["bszip", 2, b""]))])), "compression “bszip”"),
        (an_image(CBORTag(40, [[3, 4], CBORTag(69, CBORTag(56500, ["bslz4", 2, b"short"]))])), "damaged array"),
        (an_image(CBORTag(40, [[3, 4], CBORTag(69, CBORTag(56500, [1])) ])), "tag 56500"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(message: bytes, reason: str) -> None:
    with pytest.raises(FrameSourceError, match=reason):
        decode(message)


def test_a_dtype_without_a_tag_is_refused() -> None:
    with pytest.raises(ValueError, match="complex128"):
        encode_image(1, "u", 0, {"t": np.zeros((2, 2), complex)})


@settings(max_examples=60, deadline=None)
@given(
    npst.arrays(st.sampled_from([*TAGS, *BIG_ENDIAN]), npst.array_shapes(min_dims=1, max_dims=2, max_side=40)),
    st.sampled_from(["bslz4", "none"]),
    st.integers(0, 2**64 - 1),
)
def test_images_come_back(pixels: Any, compression: Any, number: int) -> None:
    message = decode(encode_image(1, "ü", number, {"a": pixels, "b": pixels[::-1]}, compression=compression))
    assert isinstance(message, ImageMessage)
    assert message.image_id == number
    for name, sent in (("a", pixels), ("b", pixels[::-1])):
        got = message.data[name].array()
        assert got.dtype == pixels.dtype
        np.testing.assert_array_equal(got, sent)
        np.testing.assert_array_equal(message.data[name].array(np.empty_like(got)), sent)


def test_an_encoded_array_goes_on_as_it_came() -> None:
    chunk = filtered(PIXELS, hdf5plugin.Bitshuffle(cname="zstd"))
    encoded = EncodedArray((3, 4), np.dtype("<u2"), "bszstd", chunk)
    message = decode(encode_image(1, "u", 0, {"a": encoded}))
    assert isinstance(message, ImageMessage)
    assert message.data["a"] == encoded


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_message_never_does_more_than_raise(data: st.DataObject) -> None:
    message = bytearray(encode_image(1, "u", 0, {"a": np.arange(600, dtype="<u4").reshape(20, 30)}, {"user_data": [1]}))
    if data.draw(st.booleans()):
        del message[data.draw(st.integers(0, len(message))) :]
    for position in data.draw(st.lists(st.integers(0, max(0, len(message) - 1)), max_size=5)):
        message[position : position + 1] = bytes([data.draw(st.integers(0, 255))])
    try:
        decoded = decode(bytes(message))
        if isinstance(decoded, ImageMessage):
            for item in decoded.data.values():
                item.array()
    except FrameSourceError as error:
        assert str(error)  # noqa: PT017

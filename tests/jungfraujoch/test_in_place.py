"""Reading without copies says the same as the plain decoder, whatever the message."""

from __future__ import annotations

from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.stream2 import ImageMessage, decode
from sisockdaq.jungfraujoch.in_place import read_message
from tests.jungfraujoch.sender import frame, image, payload, tagged

LARGE = (120, 160)


def packed(dtype: str, packing: str, order: int) -> cbor2.CBORTag:
    pixels = np.random.default_rng(0).integers(0, 100, LARGE).astype(dtype)
    return tagged(pixels, ("bslz4", payload(pixels)) if packing == "bslz4" else None, order)


values = st.recursive(
    st.integers() | st.text() | st.binary() | st.booleans() | st.none() | st.just({"data": {"default": 5}}),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("data"), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["<u2", "<i4", "|u1", "<f4"]),
    st.sampled_from(["none", "bslz4"]),
    st.sampled_from([40, 1040]),
    st.integers(1, 3),
    st.dictionaries(st.sampled_from(["user_data", "spots", "a", "zz"]), values, max_size=3),
    st.booleans(),
    st.data(),
)
def test_same_as_the_decoder(
    dtype: str, packing: str, order: int, channels: int, more: dict[str, Any], first: bool, data: st.DataObject
) -> None:
    pixels = {f"threshold_{number}": packed(dtype, packing, order) for number in range(channels)}
    rest = {**frame(3), **more}
    del rest["data"]
    raw = cbor2.dumps({"data": pixels, **rest} if first else {**rest, "data": pixels})
    assert_same(raw)
    cut = data.draw(st.integers(0, len(raw)))
    assert_same(raw[:cut])


def assert_same(raw: bytes) -> None:
    try:
        expected = decode(raw)
    except FrameSourceError:
        with pytest.raises(FrameSourceError):
            read_message(raw)
        return
    got = read_message(raw)
    assert isinstance(got, ImageMessage)
    assert isinstance(expected, ImageMessage)
    assert (got.image_id, got.fields) == (expected.image_id, expected.fields)
    assert list(got.data) == list(expected.data)
    for name, array in expected.data.items():
        mine = got.data[name]
        assert (mine.shape, mine.dtype, mine.compression, mine.column_major, bytes(mine.payload)) == (
            array.shape, array.dtype, array.compression, array.column_major, array.payload)  # fmt: skip


def test_pixels_are_not_copied() -> None:
    raw = cbor2.dumps(frame(1, tagged(image(1, shape=(200, 200)))))
    message = read_message(raw)
    assert isinstance(message, ImageMessage)
    assert np.shares_memory(message.data["default"].array(), np.frombuffer(raw, np.uint8))


def test_something_like_pixels_before_the_pixels() -> None:
    """A map called data that only looks like the image's."""
    decoy = {"data": {"default": tagged(image(2, shape=(200, 200)))}}
    raw = cbor2.dumps({"type": "image", "user_data": decoy, **frame(1, tagged(image(1, shape=(200, 200))))})
    message = read_message(raw)
    assert isinstance(message, ImageMessage)
    np.testing.assert_array_equal(message.data["default"].array(), image(1, shape=(200, 200)))


def test_pixels_packed_for_another_element_size_are_refused() -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (200, 200)).astype("<u4")
    message = tagged(pixels, ("bslz4", payload(pixels)))
    message.value[1].value.value[1] = 2
    with pytest.raises(FrameSourceError, match="packed as 2 bytes"):
        read_message(cbor2.dumps(frame(1, message)))

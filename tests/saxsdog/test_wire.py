"""The wire against a client written from the contract alone: `literal_request` shares no code with the library."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.saxsdog.wire import (
    COMMANDS,
    Attachment,
    Guard,
    RequestRefused,
    encode,
    new_file_message,
    read_new_file,
    read_reply,
    signed_request,
)

SECRET = "some large random string, ünïcode"
NOW = 1_700_000_000.25

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arguments = st.dictionaries(st.text(), json_values, max_size=4)


def literal_request(
    command: str, argument: Any, *attached: dict[str, str], time: float = NOW, secret: str = SECRET
) -> Any:
    request = {"command": command, "argument": argument, "time": time, "sign": ""}
    digest = hashlib.sha512()
    digest.update(json.dumps(request, sort_keys=True).encode())
    digest.update(secret.encode())
    request["sign"] = digest.hexdigest()
    return [json.dumps(request).encode(), *(json.dumps(one).encode() for one in attached)]


def guard(now: float = NOW, **options: Any) -> Guard:
    made = Guard(SECRET, clock=lambda: now - 1000, **options)
    made._clock = lambda: now
    return made


def refusal(frames: list[bytes], by: Guard) -> dict[str, Any]:
    with pytest.raises(RequestRefused) as caught:
        by.read(frames)
    json.loads(encode(caught.value.reply))
    return caught.value.reply


MASK = {"filename": "a.msk", "data": "".join(map(chr, range(256)))}


@given(st.sampled_from(COMMANDS), arguments)
def test_a_literal_client_is_understood(command: str, argument: dict[str, Any]) -> None:
    for strict in (True, False):
        request = guard(strict=strict).read(literal_request(command, argument))
        assert (request.command, request.argument, request.attachments) == (command, argument, ())


@given(arguments, st.lists(st.tuples(st.text(), st.text()), max_size=3), st.booleans())
def test_what_our_client_sends_arrives(argument: dict[str, Any], files: list[tuple[str, str]], strict: bool) -> None:
    sent = [Attachment(*one) for one in files]
    frames = signed_request("new", argument, SECRET, sent, strict=strict, now=NOW)
    request = guard(strict=strict).read(frames)
    assert (request.argument, list(request.attachments)) == (argument, sent)


def test_a_compatible_request_is_what_the_contract_says() -> None:
    frames = signed_request("new", {"a": [1, "ß"]}, SECRET, [Attachment("a.msk", MASK["data"])], strict=False, now=NOW)
    ours, theirs = (list(map(json.loads, one)) for one in (frames, literal_request("new", {"a": [1, "ß"]}, MASK)))
    assert ours == theirs


def test_a_mask_is_its_bytes() -> None:
    request = guard(strict=False).read(literal_request("new", {}, MASK))
    assert request.attachments[0].bytes == bytes(range(256))
    with pytest.raises(ValueError, match="character 2 is no byte"):
        _ = Attachment("b.msk", "ab€").bytes


@pytest.mark.parametrize("shift", [-900, 900, 1e9, -1e9])
def test_late_requests_are_untimely(shift: float) -> None:
    reply = refusal(literal_request("stat", {}, time=NOW + shift), guard())
    assert reply == {"result": "AuthenticationError", "data": {"Error": "'Untimely request.'"}}


@pytest.mark.parametrize("shift", [-899, 0, 899])
def test_clocks_may_differ_a_little(shift: float) -> None:
    assert guard().read(literal_request("stat", {}, time=NOW + shift)).command == "stat"


@given(st.data())
def test_any_tampering_is_found(data: st.DataObject) -> None:
    frames = literal_request("listdir", {"directory": ["a"]})
    said = json.loads(frames[0])
    changed = {
        **said,
        **data.draw(
            st.sampled_from(
                [
                    {"command": "abort"},
                    {"argument": {"directory": ["b"]}},
                    {"time": NOW + 1},
                    {"sign": said["sign"].upper()},
                    {"sign": ""},
                    {"sign": "é"},
                    {"sign": "\ud800"},
                    {"attachments": []},
                ]
            )
        ),
    }
    reply = refusal([json.dumps(changed).encode()], guard(strict=data.draw(st.booleans())))
    assert reply == {"result": "AuthenticationError", "data": {"Error": "'Wrong signature.'"}}


def test_another_secret_is_refused() -> None:
    reply = refusal(literal_request("stat", {}, secret="other"), guard(strict=False))
    assert reply["data"] == {"Error": "'Wrong signature.'"}
    with pytest.raises(ValueError, match="empty secret"):
        Guard("")


class TestStrict:
    def test_a_replay_is_refused(self) -> None:
        by, frames = guard(), literal_request("abort", {})
        by.read(frames)
        assert refusal(frames, by)["data"] == {"Error": "'Replayed request.'"}
        # The same request, written otherwise, has the same signature.
        spaced = [json.dumps(json.loads(frames[0]), indent=3).encode()]
        assert refusal(spaced, by)["data"] == {"Error": "'Replayed request.'"}

    def test_compatible_lets_a_replay_pass(self) -> None:
        by, frames = guard(strict=False), literal_request("abort", {})
        assert by.read(frames) == by.read(frames)

    def test_attachments_must_be_signed(self) -> None:
        reply = refusal(literal_request("new", {}, MASK), guard())
        assert reply == {"result": "AuthenticationError", "data": {"Error": "'Unsigned attachments.'"}}

    @pytest.mark.parametrize("strict", [True, False])
    def test_attachments_cannot_be_exchanged_added_or_taken(self, strict: bool) -> None:
        frames = signed_request("new", {}, SECRET, [Attachment("a", "1"), Attachment("b", "2")], now=NOW)
        other = json.dumps({"filename": "a", "data": "3"}).encode()
        for tampered in (
            [frames[0], other, frames[2]],
            [*frames, other],
            frames[:2],
            [frames[0], frames[2], frames[1]],
        ):
            reply = refusal(tampered, guard(strict=strict))
            assert reply["data"] == {"Error": "'Wrong signature of an attachment.'"}

    def test_requests_from_before_the_start_are_untimely(self) -> None:
        by = Guard(SECRET, clock=lambda: NOW)
        assert refusal(literal_request("stat", {}, time=NOW - 1), by)["data"] == {"Error": "'Untimely request.'"}
        assert by.read(literal_request("stat", {}, time=NOW + 1)).command == "stat"


@given(
    st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(st.binary(), max_size=2),
)
def test_whatever_arrives_gets_a_reply(frame: bytes, further: list[bytes]) -> None:
    reply = refusal([frame, *further], guard())
    assert reply["result"] in ("ValidationError in request", "ValueError in request")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"command": "rm"}, "'rm' is not one of"),
        ({"command": ["stat"]}, "is not one of"),
        ({"argument": [1]}, "argument is not an object"),
        ({"time": "now"}, "time is not a number"),
        ({"time": True}, "time is not a number"),
        ({"time": 10**400}, "time is not a number"),
        ({"time": float("nan")}, "time is not a number"),
        ({"sign": 3}, "sign is not a string"),
        ({"more": 1}, "'more' was unexpected"),
        ({"attachments": {}}, "attachments is not a list"),
    ],
)
def test_malformed_requests_are_told_why(change: dict[str, Any], text: str) -> None:
    said = {"command": "stat", "argument": {}, "time": NOW, "sign": "", **change}
    reply = refusal([json.dumps(said).encode()], guard())
    assert reply["result"] == "ValidationError in request"
    assert text in reply["data"]


def test_missing_keys_huge_requests_and_deep_ones_are_refused() -> None:
    assert refusal([b'{"command": "stat"}'], guard())["data"] == "'time' is a required property"
    assert refusal([], guard())["result"] == "ValueError in request"
    assert "at most 1000 bytes" in refusal([b" " * 600, b" " * 600], guard(most_bytes=1000))["data"]["Error"]
    deep = (
        b'{"command":"stat","time":1700000000.25,"sign":"","argument":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    )
    assert refusal([deep], guard())["result"] == "ValueError in request"


def test_broken_attachments_are_refused() -> None:
    for broken in (b"x", b"[]", b'{"filename": "a"}', b'{"filename": "a", "data": 3}'):
        reply = refusal([*literal_request("new", {}), broken], guard(strict=False))
        assert reply["result"] == "ValueError in request"


@given(st.text(min_size=1))
def test_news_of_a_file_arrives(path: str) -> None:
    assert json.loads(new_file_message(path)) == {"command": "new file", "argument": path}
    assert read_new_file(new_file_message(path)) == (None if "\0" in path else path)


@given(st.binary())
def test_other_news_is_passed_over(frame: bytes) -> None:
    assert read_new_file(frame) is None
    assert read_new_file(json.dumps({"command": "new file", "argument": 1}).encode()) is None
    assert read_new_file(json.dumps({"command": "old file", "argument": "a"}).encode()) is None


def test_replies_are_read() -> None:
    assert read_reply(b"{}") == {}
    assert read_reply(b'{"result": "stat", "data": {"stat": {}}}')["result"] == "stat"
    for broken in (b"", b"[]", b'{"data": 1}', b"[" * 100_000):
        with pytest.raises(ValueError, match="reply"):
            read_reply(broken)

"""Times, durations, targets and limits, as dashboards write them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sisockdaq.gateways.grafana.listings import Row
from sisockdaq.gateways.grafana.questions import api_query, panel_query
from sisockdaq.gateways.grafana.targets import MOST_NAMES, expand, variables
from sisockdaq.gateways.grafana.times import duration, instant, span

from sisockdaq.errors import FieldUnknown, IntervalError

NOW = 1_800_000_000.0
KNOWN = {name: Row(name, *name.split("::"), "number", None, None, "t", 1.0) for name in ("a::x", "a::y (C)", "b::x")}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("20s", 20), ("5m", 300), ("4h", 14400), ("1d", 86400), ("1w", 604800), ("1M", 30 * 86400),
     ("1y", 365 * 86400), ("1.5h", 5400), (250, 0.25), ("250", 0.25)],
)  # fmt: skip
def test_durations(text: str | int, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("wrong", ["", "s", "1 fortnight", "-1s", -5, None, True, [], float("nan"), "1e999"])
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    with pytest.raises(IntervalError):
        duration(wrong)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.sampled_from(["Z", "+00:00", ""]))
def test_iso_times_keep_their_parts_of_a_second(moment: datetime, zone: str) -> None:
    text = moment.isoformat(timespec="milliseconds") + zone
    exact = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC).timestamp()
    assert instant(text, NOW) == exact
    assert instant(round(exact * 1000), NOW) == pytest.approx(exact, abs=1e-6)
    assert instant(str(round(exact * 1000)), NOW) == pytest.approx(exact, abs=1e-6)


def test_relative_times() -> None:
    assert instant("now", NOW) == NOW
    assert instant("now-6h", NOW) == NOW - 21600
    assert instant("now+1d", NOW) == NOW + 86400
    assert instant(0, NOW) > 0  # for a node zero would be the present


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.lists(st.integers())))
def test_whatever_comes_is_a_time_or_is_refused(value: object) -> None:
    try:
        assert instant(value, NOW) > 0
    except IntervalError as error:
        assert error.remedy  # noqa: PT017


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(IntervalError, match="from must be before to"):
        span("now", "now-1h", NOW)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("a::x", ["a::x"]),
        ("a::y (C)", ["a::y (C)"]),
        ("$node::x", ["a::x", "b::x"]),
        ("${node:regex}::x", ["a::x", "b::x"]),
        ("[[node]]::x", ["a::x", "b::x"]),
        ("$other::x", ["$other::x"]),
        ("{a,b}::x", ["a::x", "b::x"]),
        ("(a|b)::{x,z}", ["a::x", "a::z", "b::x", "b::z"]),
        (r"a::y \(C\)", ["a::y (C)"]),
        ("*::x", ["a::x", "b::x"]),
        ("?::x", ["a::x", "b::x"]),
    ],
)
def test_targets(target: str, names: list[str]) -> None:
    scoped = variables({"node": {"text": "both", "value": ["a", "b"]}, "odd": {"value": {}}, "odder": None})
    assert expand(target, KNOWN, scoped) == names


def test_targets_are_bounded() -> None:
    with pytest.raises(FieldUnknown, match=f"more than {MOST_NAMES}"):
        expand("{a,b}" * 20, KNOWN)
    with pytest.raises(FieldUnknown, match="no field matches"):
        expand("c*", KNOWN)


@given(st.text(alphabet="ab{}(),|$[]*?\\: ", max_size=40))
def test_any_target_ends(target: str) -> None:
    with contextlib.suppress(FieldUnknown):
        assert len(expand(target, KNOWN, {"a": ["$a", "b"]})) <= MOST_NAMES


@pytest.mark.parametrize(
    ("more", "points"),
    [({"maxDataPoints": 300}, 300), ({"maxDataPoints": "300"}, 300), ({"maxDataPoints": 10**9}, 5000), ({}, 1000),
     ({"intervalMs": 60_000}, 61), ({"interval": "1w"}, 2), ({"intervalMs": 0}, 5000)],
)  # fmt: skip
def test_points_of_a_panel(more: dict[str, object], points: int) -> None:
    body = {"range": {"from": "now-1h", "to": "now"}, "targets": [{"target": "a::x"}], **more}
    query = panel_query(body, KNOWN, now=NOW, cap=5000)
    assert (query.start, query.end) == (NOW - 3600, NOW)
    assert query.wanted[0].max_points == points


def test_points_of_a_request_for_infinity() -> None:
    def points(**more: str) -> int:
        given = {"field": ["a::x"], **{key: [value] for key, value in more.items()}}
        return api_query(given, KNOWN, now=NOW, cap=5000).wanted[0].max_points

    assert points() == 5000
    assert points(max_points="70") == 70
    assert points(interval="60s") == 61

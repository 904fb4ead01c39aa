"""Names that an HTTP server answers to."""

from __future__ import annotations

import pytest

from sisockdaq.web import own_hosts


@pytest.mark.parametrize("interface", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_a_server_of_this_machine_has_its_names_and_those_it_is_given(interface: str) -> None:
    hosts = own_hosts(interface, ["DAQ.example.org"])
    assert hosts is not None
    assert {"localhost", "127.0.0.1", "::1", interface, "daq.example.org"} == set(hosts)


def test_where_others_reach_it_only_given_names_make_a_limit() -> None:
    assert own_hosts("0.0.0.0") is None
    assert own_hosts("192.0.2.7") is None
    assert own_hosts("daq.example.org") is None
    limited = own_hosts("0.0.0.0", ["daq.example.org"])
    assert limited is not None
    assert "daq.example.org" in limited

"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sisockdaq.environment import (
    CERTIFICATE,
    checked_options,
    network_name,
    network_settings,
    option_variables,
)
from sisockdaq.errors import ConfigurationError

SECRET = {"WAMP_SECRET": "s3cret"}


class Options(BaseModel):
    """Of some node."""

    model_config = ConfigDict(extra="forbid")

    directory: Path = Field(Path("/data"), description="Where the files are.")
    max_points: int | None = Field(None, ge=1, json_schema_extra={"environment": "MAX_POINTS"})
    interval: float = Field(2.5, gt=0, json_schema_extra={"environment": "INTERVAL"})
    target: str = Field(description="Instance id of the agent.", json_schema_extra={"environment": "TARGET"})
    password: int = Field(1, json_schema_extra={"environment": "SQL_PASSWD"})


def test_the_defaults_are_those_of_the_existing_network() -> None:
    network = network_settings(SECRET)
    assert network.url == "wss://sisock-crossbar:8080/ws"
    assert (network.user, network.secret) == ("server", "s3cret")
    assert (network.realm, network.base_uri) == ("test_realm", "org.simonsobservatory")
    assert network.certificate == CERTIFICATE == Path(".crossbar/server_cert.pem")


def test_each_variable_has_its_effect_and_a_flag_is_above_it() -> None:
    environ = {
        **SECRET, "WAMP_USER": "me", "CROSSBAR_HOST": "::1", "CROSSBAR_TLS_PORT": "8443", "WAMP_REALM": "other",
        "WAMP_BASE_URI": "edu.yale",
    }  # fmt: skip
    network = network_settings(environ)
    assert network.url == "wss://[::1]:8443/ws"
    assert (network.user, network.realm, network.base_uri) == ("me", "other", "edu.yale")
    flagged = network_settings(environ, realm="third", base_uri="b", certificate=Path("c.pem"))
    assert (flagged.realm, flagged.base_uri, flagged.certificate) == ("third", "b", Path("c.pem"))


def test_the_open_port_takes_no_secret() -> None:
    network = network_settings({"CROSSBAR_OCS_PORT": "8002", "CROSSBAR_HOST": "h"}, open_port=True)
    assert network.url == "ws://h:8002/ws"
    assert (network.user, network.secret, network.certificate) == ("", "", None)


def test_there_is_no_default_secret() -> None:
    with pytest.raises(ConfigurationError, match='WAMP_SECRET is not set: the secret of user "server"'):
        network_settings({})


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from a file\n")
    assert network_settings({"WAMP_SECRET_FILE": str(file)}).secret == "from a file"
    with pytest.raises(ConfigurationError, match="both set"):
        network_settings({**SECRET, "WAMP_SECRET_FILE": str(file)})
    file.write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        network_settings({"WAMP_SECRET_FILE": str(file)})
    with pytest.raises(ConfigurationError, match=r"WAMP_SECRET_FILE: .*No such file"):
        network_settings({"WAMP_SECRET_FILE": str(tmp_path / "none")})


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        network_settings({"CROSSBAR_TLS_PORT": "eighty"})
    assert [line.split(":")[0] for line in caught.value.problems] == ["CROSSBAR_TLS_PORT", "WAMP_SECRET is not set"]


@given(st.text(min_size=1).filter(lambda text: not (text.strip().isdecimal() and 1 <= int(text) <= 65535)))
def test_no_port_but_a_port_is_taken(text: str) -> None:
    with pytest.raises(ConfigurationError, match="CROSSBAR_TLS_PORT"):
        network_settings({**SECRET, "CROSSBAR_TLS_PORT": text})


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(network_settings(SECRET))
    with pytest.raises(ConfigurationError) as caught:
        checked_options(Options, {"TARGET": "x", "SQL_PASSWD": "s3cret"})
    assert "SQL_PASSWD" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_names_come_from_the_nearest_to_the_person() -> None:
    assert network_name("weather", None, {}) == "weather"
    assert network_name("weather", "apex", {}) == "apex"
    assert network_name("weather", "apex", {"NAME": "n"}) == "n"
    assert network_name("weather", "apex", {"NAME": "n"}, "given") == "given"
    assert network_name("weather", None, {"NAME": ""}) == "weather"
    assert network_name("g3_archive", None, {}) == "g3_reader"


def test_options_come_from_variables_and_above_them_from_the_command_line() -> None:
    environ = {"TARGET": "LSA22YE", "MAX_POINTS": "1000", "INTERVAL": "0.5", "UNKNOWN": "1"}
    options: Any = checked_options(Options, environ, {"interval": 3})
    assert (options.target, options.max_points, options.interval) == ("LSA22YE", 1000, 3.0)


@pytest.mark.parametrize("text", ["", "0"])
def test_no_limit_of_points_is_said_as_it_was(text: str) -> None:
    options: Any = checked_options(Options, {"TARGET": "x", "MAX_POINTS": text})
    assert options.max_points is None


@pytest.mark.parametrize(
    ("environ", "given_", "said"),
    [
        ({}, {}, "TARGET is not set: Instance id of the agent."),
        ({"TARGET": "x", "MAX_POINTS": "many"}, {}, 'MAX_POINTS: "many" must be a valid integer'),
        ({"TARGET": "x", "MAX_POINTS": "-1"}, {}, 'MAX_POINTS: "-1" must be greater'),
        ({"TARGET": "x"}, {"max_points": "many"}, "--set max_points: must be a valid integer"),
        ({"TARGET": "x"}, {"maxpoints": 1}, "--set maxpoints: there is no such option"),
    ],
)
def test_a_mistake_is_named_by_where_it_is(environ: dict[str, str], given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_options(Options, environ, given_)
    assert said in caught.value.problems[0]


class Whole(Options):
    """One whose options must fit together."""

    @model_validator(mode="after")
    def _fit(self) -> Whole:
        raise ValueError("these do not fit together")


def test_a_mistake_of_the_whole_names_the_variables() -> None:
    with pytest.raises(ConfigurationError, match=r"do not fit together \(variables: MAX_POINTS, INTERVAL"):
        checked_options(Whole, {"TARGET": "x"})


def test_the_variables_of_a_type_are_known() -> None:
    found = {one.variable: one for one in option_variables(Options)}
    assert list(found) == ["MAX_POINTS", "INTERVAL", "TARGET", "SQL_PASSWD"]
    assert found["INTERVAL"].default == "2.5"
    assert found["TARGET"].required
    assert found["MAX_POINTS"].option == "max_points"

"""The part of ``site.yml`` that is about the router: where it listens, who may log in, and the way in for OCS."""

from __future__ import annotations

import datetime
import os
import re
import ssl
from pathlib import Path
from typing import Literal

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sisockdaq.errors import ConfigurationError

__all__ = ["RESERVED", "OcsOptions", "RouterOptions", "UserEntry", "check_certificate", "secret_of"]

RESERVED = frozenset({"router", "hub", "consumer", "control", "simulator"})
"""Names that the site's own parts and users have."""

_USER = r"^[A-Za-z][A-Za-z0-9_.-]{0,40}$"

_VARIABLE = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")


class UserEntry(BaseModel):
    """A user that existing programs log in as (WAMP-CRA)."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["server", "consumer", "control"] = Field(
        description="server: nodes that share this user, under any name; consumer: reads; control: may control nodes."
    )
    secret: str | None = Field(
        None,
        description="Where its secret is: ${NAME}, a variable in the router's environment. Left out: the first start "
        "makes one and keeps it in the state directory.",
    )

    @field_validator("secret")
    @classmethod
    def _not_in_the_file(cls, secret: str | None) -> str | None:
        if secret is not None and not _VARIABLE.match(secret):
            # Its text is not repeated: it may be the secret itself.
            raise ValueError(
                "a secret does not belong into the site file; write ${NAME} and set the variable NAME where the "
                "router starts, or leave it out and one is made"
            )
        return secret


class OcsOptions(BaseModel):
    """A plain way in for OCS: a WebSocket (/ws) and an HTTP bridge (/call), where nobody logs in."""

    model_config = ConfigDict(extra="forbid")

    port: int = Field(8001, ge=1, le=65535, description="TCP port of the plain WebSocket and of the HTTP bridge.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every network of this machine.")
    address_root: str = Field(
        "observatory",
        pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$",
        description="First part of all OCS addresses; no other names can be used at this port.",
    )
    full_rights: bool = Field(
        False,
        description="Let nodes live at this port too, as in the oldest sites. Whoever reaches the port may then serve "
        "under any node's name.",
    )


class RouterOptions(BaseModel):
    """Where the router listens, its limits, and who may log in beside the site's own parts."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every network of this machine.")
    port: int = Field(8080, ge=1, le=65535, description="TCP port of the TLS WebSocket (path /ws).")
    names: list[str] = Field(
        default_factory=list,
        description="Further host names and addresses that the self-signed certificate is made for.",
    )
    certificate: Path | None = Field(
        None,
        description="An existing certificate (PEM), relative to this file, instead of one that is made. With key.",
    )
    key: Path | None = Field(None, description="The private key (PEM) of that certificate, relative to this file.")
    max_message_size: int = Field(
        16 * 2**20,
        ge=2**20,
        le=16 * 2**20,
        description="Largest WAMP message that the router takes [bytes]; larger replies come in chunks.",
    )
    users: dict[str, UserEntry] = Field(
        default_factory=dict, description="Users of an existing network, by the name that its programs log in with."
    )
    ocs: OcsOptions | None = Field(None, description="The plain way in for OCS. Left out: there is none.")

    @field_validator("users")
    @classmethod
    def _good_users(cls, users: dict[str, UserEntry]) -> dict[str, UserEntry]:
        for name in users:
            if not re.match(_USER, name):
                raise ValueError(
                    f'"{name}" is no name for a user: a letter, then letters, digits, _, . and -, 41 in all'
                )
            if name in RESERVED:
                raise ValueError(f'"{name}" is a name that every site uses itself; choose another for this user')
        return users

    @model_validator(mode="after")
    def _whole(self) -> RouterOptions:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise ValueError(f"{given} stands without {missing}; name both, or none of them and a pair is made")
        if self.ocs is not None and self.ocs.port == self.port:
            raise ValueError(f"port and ocs.port are both {self.port}; they are two transports, so give each its own")
        return self


def secret_of(text: str) -> str:
    """Return the value of the environment variable that ``${NAME}`` names.

    Raises
    ------
    ConfigurationError
        It is not set, or empty.
    """
    found = _VARIABLE.match(text)
    name = found.group(1) if found else text
    value = os.environ.get(name, "")
    if not value:
        raise ConfigurationError(f"the environment variable {name} is not set; set it where the router starts")
    if "$" in value and _VARIABLE.match(value):
        # The router would read such a value as the name of another variable.
        raise ConfigurationError(f"the environment variable {name} must hold the secret itself, not ${{…}}")
    return value


def check_certificate(certificate: Path, key: Path) -> None:
    """Check that both files can be read, belong together and are still valid.

    Raises
    ------
    ConfigurationError
        With the file and what is wrong with it.
    """
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from None
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except ValueError:
        raise ConfigurationError(f"{certificate} is no certificate in PEM form") from None
    if found.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise ConfigurationError(f"{certificate} was valid until {found.not_valid_after_utc:%Y-%m-%d} only")
    try:
        # An empty password makes an encrypted key an error instead of a question in the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = "does not belong to" if "MISMATCH" in str(error) else "is no usable private key (PEM, no password) for"
        raise ConfigurationError(f"{key} {reason} {certificate}") from None

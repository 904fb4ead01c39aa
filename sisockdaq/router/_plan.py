"""What a router's configuration is made from: the users, their roles, and the ways in.

A plan is taken from a site (`RouterPlan.of`) or made by hand, as tests do; it holds no secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = ["OcsAccess", "RouterPlan", "RouterSite", "rights_warning"]

FIXED_USERS = {"hub": "hub", "consumer": "consumer", "control": "control"}
"""Users that every site has, with their roles."""

LARGEST_MESSAGE = 16 * 2**20
"""RawSocket announces its limit as a power of two, at most 2**24 bytes."""


class _OcsOptions(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def address_root(self) -> str: ...
    @property
    def full_rights(self) -> bool: ...


def rights_warning(ocs: _OcsOptions | None) -> str | None:
    """Return what the person who runs the site should know about the rights at the plain port; None: nothing."""
    if ocs is None or not ocs.full_rights:
        return None
    return (
        f"port {ocs.port} gives full rights without a login (router.ocs.full_rights): whoever reaches it may serve "
        f"under any node's name"
    )


class _RouterOptions(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def max_message_size(self) -> int: ...
    @property
    def ocs(self) -> _OcsOptions | None: ...


class RouterSite(Protocol):
    """What the router needs to know of a site; `sisockdaq.site.Site` is one."""

    @property
    def site(self) -> str: ...
    @property
    def realm(self) -> str: ...
    @property
    def base_uri(self) -> str: ...
    @property
    def router(self) -> _RouterOptions: ...
    @property
    def nodes(self) -> Mapping[str, Any]: ...
    def gateway_roles(self) -> Mapping[str, str]: ...
    def user_roles(self) -> Mapping[str, str]: ...
    def user_secrets(self) -> Mapping[str, str]: ...
    def own_certificate(self) -> tuple[Path, Path] | None: ...


@dataclass(frozen=True, slots=True)
class OcsAccess:
    """The plain way in for the agents and clients of OCS: nobody logs in there.

    Attributes
    ----------
    host, port
        Where the plain WebSocket (``/ws``) and the HTTP bridge (``/call``) listen.
    address_root : str
        First part of all OCS addresses; the only names that may be used there.
    full_rights : bool
        Whether nodes may live there too, as in the oldest sites: whoever reaches the port may then serve under any
        node's name.
    """

    port: int = 8001
    host: str = "127.0.0.1"
    address_root: str = "observatory"
    full_rights: bool = False

    @property
    def local_host(self) -> str:
        """Address for connections from this machine."""
        return _local(self.host)


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """Everything that a router's configuration depends on, apart from secrets and paths.

    Attributes
    ----------
    site, realm, base_uri : str
        Names of the site, its realm and the prefix of all its WAMP names.
    nodes : tuple of str
        Names of the nodes; each gets a user of that name, and a role of its own.
    host, port
        Where the TLS WebSocket listens.
    certificate_names : tuple of str
        Further host names and addresses for the certificate.
    max_message_size : int
        Largest message of either transport [bytes].
    gateways : mapping
        Role (``consumer`` or ``control``) by name of the gateways; each gets a user of that name.
    static_users : mapping
        Role (``server``, ``consumer`` or ``control``) by name of users that existing programs log in as. ``server``
        is what nodes have that share one user.
    ocs : OcsAccess or None
        The plain way in for OCS; None: there is none.
    """

    site: str
    realm: str = "sisockdaq"
    base_uri: str = "sisockdaq"
    nodes: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    certificate_names: tuple[str, ...] = ()
    max_message_size: int = LARGEST_MESSAGE
    gateways: Mapping[str, str] = field(default_factory=dict)
    static_users: Mapping[str, str] = field(default_factory=dict)
    ocs: OcsAccess | None = None

    @classmethod
    def of(cls, site: RouterSite) -> RouterPlan:
        """Return the plan for a site."""
        ocs = site.router.ocs
        return cls(
            site=site.site,
            realm=site.realm,
            base_uri=site.base_uri,
            nodes=tuple(site.nodes),
            host=site.router.host,
            port=site.router.port,
            certificate_names=tuple(site.router.names),
            max_message_size=site.router.max_message_size,
            gateways=dict(site.gateway_roles()),
            static_users=dict(site.user_roles()),
            ocs=OcsAccess(ocs.port, ocs.host, ocs.address_root, ocs.full_rights) if ocs else None,
        )

    @property
    def url(self) -> str:
        """Address of the TLS WebSocket as reached from this machine."""
        return f"wss://{self.local_host}:{self.port}/ws"

    @property
    def local_host(self) -> str:
        """Address for connections from this machine."""
        return _local(self.host)

    @property
    def ocs_url(self) -> str | None:
        """Address of the plain WebSocket for OCS as reached from this machine; None where there is none."""
        return f"ws://{self.ocs.local_host}:{self.ocs.port}/ws" if self.ocs else None

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where the router listens on TCP, by the site file's key of the port."""
        listening = {"router.port": (self.host, self.port)}
        if self.ocs is not None:
            listening["router.ocs.port"] = (self.ocs.host, self.ocs.port)
        return listening

    def users(self) -> dict[str, str]:
        """Return every user with its role."""
        nodes = {node: f"node_{node}" for node in self.nodes}
        return {**self.static_users, **self.gateways, **nodes, **FIXED_USERS}


def _local(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host

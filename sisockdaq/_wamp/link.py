"""Connections to the router: authenticated, kept up, and honest about why they fail.

A `Link` keeps one session object joined: it connects, logs in (WAMP-CRA), and after any loss does so again, for ever,
with at most `LONGEST_DELAY` between two tries, and at once when the socket of a router on this machine appears. Parts
on the router's machine use its unix socket with MsgPack, others its TLS WebSocket. A refused login is final, and its
error holds the reason that the router gave.

The session *object* stays the same across connections (`LinkedSession`): what a node keeps in its attributes survives
a restart of the router. Only autobahn's own bookkeeping (requests, registrations) is fresh each time.

autobahn's ``Component`` does the reconnecting too, but makes a new session each time, treats an orderly shutdown of the
router as "done", and hides the reason of a refused login behind "exhausted all transport connect attempts".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.rawsocket import WampRawSocketClientFactory
from autobahn.twisted.wamp import ApplicationSession
from autobahn.twisted.websocket import WampWebSocketClientFactory
from autobahn.wamp import auth
from autobahn.wamp.exception import ApplicationError, TransportLost
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import ComponentConfig
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import SSL4ClientEndpoint, TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS, platformTrust
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    NodeNotFound,
    NotAuthorized,
    SisockdaqError,
    from_wamp,
)
from sisockdaq.state import StateDirectory

_log = Logger("sisockdaq.session")

__all__ = [
    "Credentials",
    "Endpoint",
    "Link",
    "LinkedSession",
    "answer_challenge",
    "call_within",
    "error_of",
    "login_error",
    "the_reactor",
]

FIRST_DELAY = 0.1
"""Pause before the first new try [s]: a router that only dropped this one connection is there at once."""

LONGEST_DELAY = 2.0
"""Longest pause between two tries [s]: the network must be whole again seconds after the router is."""

LOOK_PERIOD = 0.1
"""Time between two looks for the router's socket [s]: the parts of a site start with it, and are there before it."""

CONNECT_DEADLINE = 10
"""Time for a connection to be made [s]."""

LOGIN_DEADLINE = 15.0
"""Time from the connection to a joined session [s]; a router that is starting may be slow."""

_LEAVE_DEADLINE = 1.0
"""Time that the router gets to say goodbye [s]."""

MESSAGE_LIMIT = 16 * 2**20
"""Largest message that is taken [bytes], as the router's limit."""

_PING_INTERVAL, _PING_DEADLINE = 5.0, 10.0
"""Pings of the TLS WebSocket from our side [s], so that a silent network loss is noticed."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of the router and its secret; the secret is never shown.

    Without a user, the login is anonymous: for the open port that OCS agents of existing sites use.
    """

    user: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a router is, and what names hold there.

    Attributes
    ----------
    url : str
        ``wss://host:port/ws`` (or ``ws://``).
    realm, base_uri : str
    socket : Path or None
        The router's unix socket; used where it exists.
    certificate : Path or None
        Certificate to trust for the TLS WebSocket; None: what the system trusts.
    any_host : bool
        Whether the certificate may be made for another host name. It must still be the very one that is trusted, so
        nobody else can show it. Certificates of existing sisock sites name whatever host they were made on.
    """

    url: str
    realm: str = "sisockdaq"
    base_uri: str = "sisockdaq"
    socket: Path | None = None
    certificate: Path | None = None
    any_host: bool = False

    @classmethod
    def of_state(cls, state: StateDirectory) -> Endpoint:
        """Return the endpoint that a site on this machine left in its state directory.

        Raises
        ------
        ConfigurationError
            When the site was never started here.
        """
        stored = state.read_endpoint()
        return cls(
            url=stored["url"],
            realm=stored["realm"],
            base_uri=stored["base_uri"],
            socket=Path(stored["socket"]) if stored.get("socket") else None,
            certificate=Path(stored["certificate"]) if stored.get("certificate") else None,
        )

    @property
    def local(self) -> bool:
        """Whether the unix socket is there to be used."""
        return self.socket is not None and self.socket.exists()

    def __str__(self) -> str:
        return str(self.socket) if self.local else self.url


class LinkedSession(ApplicationSession):
    """A WAMP session that logs in with `credentials` and can be used for one connection after another."""

    def __init__(self, config: ComponentConfig | None = None, credentials: Credentials | None = None) -> None:
        super().__init__(config)
        self.credentials = credentials

    def renew(self) -> None:
        """Forget the previous connection; called before this object is used for the next."""
        ApplicationSession.__init__(self, self.config)

    def onConnect(self) -> None:  # noqa: N802 - autobahn's name
        """Log in as the user of the credentials."""
        user = self.credentials.user if self.credentials else None
        anonymous = self.credentials is not None and not self.credentials.user
        self.join(self.config.realm, ["anonymous" if anonymous else "wampcra"], None if anonymous else user)

    def onChallenge(self, challenge: Any) -> str:  # noqa: N802 - autobahn's name
        """Answer the router's challenge."""
        if self.credentials is None or challenge.method != "wampcra":
            raise AuthenticationFailed(f"the router asks for {challenge.method}, which this session cannot answer")
        return answer_challenge(challenge, self.credentials.secret)

    def onUserError(self, fail: Failure, message: str) -> None:  # noqa: N802 - autobahn's name
        """Log an error in a handler; one that a person reads is logged without its traceback."""
        if fail.check(CancelledError, TransportLost):
            return
        if isinstance(fail.value, SisockdaqError | ApplicationError):
            _log.warn("{message}: {error}", message=message, error=str(fail.value))
        else:
            _log.failure("{message}", failure=fail, message=message)


def answer_challenge(challenge: Any, secret: str) -> str:
    """Return the signature of a WAMP-CRA challenge."""
    key = secret.encode()
    if "salt" in challenge.extra:
        key = auth.derive_key(key, challenge.extra["salt"], challenge.extra["iterations"], challenge.extra["keylen"])
    return str(auth.compute_wcs(key, challenge.extra["challenge"]).decode("ascii"))


def the_reactor() -> Any:
    """Return Twisted's global reactor, which is installed when it is first asked for."""
    from twisted.internet import reactor

    return reactor


class Link:
    """Keeps one session joined to a router until stopped.

    Parameters
    ----------
    session : LinkedSession
        Used for every connection in turn.
    endpoint : Endpoint
        Where to connect; or a callable that gives it anew before each try.
    reactor : optional
        Twisted's, when not the global one.

    Attributes
    ----------
    failure : SisockdaqError or None
        Why the latest try failed; None while joined.
    """

    def __init__(
        self, session: LinkedSession, endpoint: Endpoint | Callable[[], Endpoint], *, reactor: Any = None
    ) -> None:
        self.session = session
        self.failure: SisockdaqError | None = None
        self._outcome: Failure | None = None
        self._ended = False
        self._waiting: list[Deferred[None]] = []
        self._endpoint = endpoint if callable(endpoint) else lambda: endpoint
        self._reactor = reactor or the_reactor()
        self._stopping = False
        self._joined = False
        self._used = False
        self._refused: tuple[str, str] | None = None
        self._loop: Deferred[None] | None = None
        self._protocol: Any = None

    def start(self) -> Deferred[None]:
        """Begin to connect; return `when_done`."""
        self._loop = self._run()
        self._loop.addBoth(self._finish)
        return self.when_done()

    def stop(self) -> Deferred[None]:
        """Leave the realm, close the connection and try no more; the Deferred fires when that is done."""
        self._stopping = True
        if self._loop is None:
            self._finish(None)
        elif self.session.is_attached():
            self.session.leave()
            self._reactor.callLater(_LEAVE_DEADLINE, self._abort)
        else:
            self._abort()
            self._loop.cancel()
        return self.when_done().addErrback(lambda _: None)

    def when_done(self) -> Deferred[None]:
        """Return a Deferred that fires after `stop`, or fails with the error that makes further tries useless."""
        waiting: Deferred[None] = Deferred()
        if self._ended:
            waiting.errback(self._outcome) if self._outcome is not None else waiting.callback(None)
        else:
            self._waiting.append(waiting)
        return waiting

    def _finish(self, result: Any) -> None:
        cancelled = isinstance(result, Failure) and result.check(CancelledError)
        self._ended = True
        self._outcome = result if isinstance(result, Failure) and not cancelled else None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(self._outcome) if self._outcome is not None else one.callback(None)

    @inlineCallbacks
    def _run(self) -> Any:
        delay = FIRST_DELAY
        while not self._stopping:
            self._joined, self._refused = False, None
            endpoint: Endpoint | None = None
            there = True
            try:
                endpoint = self._endpoint()
                there = endpoint.local
                yield self._one_connection(endpoint)
            except CancelledError:
                return
            except SisockdaqError as error:
                self.failure = error
            except Exception as error:  # Twisted and OpenSSL raise many kinds; each means "not connected".
                self.failure = _connection_error(endpoint, error)
            if isinstance(self.failure, AuthenticationFailed | ConfigurationError):
                raise self.failure
            delay = FIRST_DELAY if self._joined else min(2 * delay, LONGEST_DELAY)
            if not self._stopping:
                _log.info("{reason}; trying again in {delay:.1f} s", reason=str(self.failure), delay=delay)
                yield self._pause(endpoint, there, delay)

    @inlineCallbacks
    def _pause(self, endpoint: Endpoint | None, there: bool, delay: float) -> Any:
        """Wait for so long, but no longer than until the router's socket appears that was not `there` at the try."""
        end = self._reactor.seconds() + delay
        while (left := end - self._reactor.seconds()) > 0:
            was, there = there, endpoint is not None and endpoint.local
            if there and not was:
                return
            yield deferLater(self._reactor, min(left, LOOK_PERIOD))

    @inlineCallbacks
    def _one_connection(self, endpoint: Endpoint) -> Any:
        """Connect, and return when the connection has ended."""
        protocol = yield _client_endpoint(endpoint, self._reactor).connect(
            _transport_factory(endpoint, self._session_for_connection)
        )
        self._protocol = protocol
        lost = _reason_of_loss(protocol)
        login = self._reactor.callLater(LOGIN_DEADLINE, self._give_up_login)
        try:
            yield protocol.is_closed
        finally:
            self._protocol = None
            if login.active():
                login.cancel()
        if self._refused is not None:
            self.failure = login_error(*self._refused, self.session, endpoint)
        else:
            what, why = "was lost" if self._joined else "closed before the login was complete", lost()
            remedy = "say which certificate to trust: certificate=, or SISOCKDAQ_CERTIFICATE" if "TLS" in why else ""
            self.failure = ConnectionFailed(f"the connection to the router at {endpoint} {what}: {why}", remedy=remedy)

    def _session_for_connection(self) -> LinkedSession:
        if self._used:
            self.session.renew()
        self._used = True
        events: Any = self.session
        events.on("join", self._on_join)
        events.on("leave", self._on_leave)
        return self.session

    def _on_join(self, *_: Any) -> None:
        self._joined = True
        self.failure = None

    def _on_leave(self, session: LinkedSession, details: Any) -> None:
        if not self._joined:
            self._refused = (str(details.reason), str(details.message or ""))
        if session.is_connected():
            session.disconnect()

    def _give_up_login(self) -> None:
        if not self._joined:
            self._abort()

    def _abort(self) -> None:
        protocol = self._protocol
        if protocol is not None and not protocol.is_closed.called:
            protocol.transport.abortConnection()


def login_error(reason: str, message: str, session: LinkedSession, endpoint: Endpoint) -> SisockdaqError:
    """Return the error for a login that the router refused, from its reason URI and message."""
    user = session.credentials.user if session.credentials else os.environ.get("WAMP_USER", "")
    said = message or reason
    if reason == ApplicationError.NO_SUCH_REALM or "no_such_realm" in reason:
        return ConnectionFailed(f"the router at {endpoint} has no realm {session.config.realm!r}: {said}")
    if any(word in reason for word in ("auth", "no_such_role", "no_such_principal")):
        return AuthenticationFailed(
            f"the router at {endpoint} refused user {user!r}: {said}",
            remedy="check user and secret; after a node was added to the site file, restart the router",
        )
    return ConnectionFailed(f"the router at {endpoint} closed the session: {said} ({reason})")


def call_within(session: Any, deadline: float, procedure: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Call a procedure; fail with `DeadlineExceeded` after `deadline` seconds, with `error_of` any other failure."""
    if not session.is_attached():
        # A call that is sent before the login is complete is neither answered nor refused by the router.
        return fail(ConnectionFailed(f"not connected to the router, so {procedure} cannot be called"))
    result: Deferred[Any] = maybeDeferred(session.call, procedure, *args, **kwargs)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        result.cancel()

    timer = the_reactor().callLater(deadline, expire)

    def settle(outcome: Any) -> Any:
        if timer.active():
            timer.cancel()
        if expired:
            raise DeadlineExceeded(f"{procedure} gave no answer within {deadline:g} s")
        if isinstance(outcome, Failure) and outcome.value is not None:
            raise error_of(outcome.value, procedure)
        return outcome

    result.addBoth(settle)
    return result


def error_of(error: BaseException, procedure: str = "") -> BaseException:
    """Return the error of this project that a failed WAMP request stands for; other exceptions come back unchanged."""
    if isinstance(error, TransportLost):
        return ConnectionFailed(f"the connection to the router was lost during {procedure or 'a request'}")
    if not isinstance(error, ApplicationError):
        return error
    if error.error == ApplicationError.NO_SUCH_PROCEDURE:
        return NodeNotFound(f"nobody on the network answers to {procedure or error.error_message()}")
    if error.error in (ApplicationError.NOT_AUTHORIZED, ApplicationError.AUTHORIZATION_FAILED):
        return NotAuthorized(f"this user may not use {procedure}" if procedure else error.error_message())
    if error.error in (ApplicationError.CANCELED, "wamp.close.transport_lost"):
        return ConnectionFailed(f"{procedure or 'a request'} ended with {error.error}")
    return from_wamp(error.error, error.args, error.kwargs)


def _transport_factory(endpoint: Endpoint, session: Callable[[], LinkedSession]) -> Any:
    factory: Any
    if endpoint.local:
        factory = WampRawSocketClientFactory(session, serializer=MsgPackSerializer())
        factory.setProtocolOptions(maxMessagePayloadSize=MESSAGE_LIMIT)
    else:
        factory = WampWebSocketClientFactory(
            session, url=endpoint.url, serializers=[MsgPackSerializer(), CBORSerializer(), JsonSerializer()]
        )
        factory.setProtocolOptions(
            maxFramePayloadSize=MESSAGE_LIMIT,
            maxMessagePayloadSize=MESSAGE_LIMIT,
            openHandshakeTimeout=CONNECT_DEADLINE,
            closeHandshakeTimeout=1.0,
            autoPingInterval=_PING_INTERVAL,
            autoPingTimeout=_PING_DEADLINE,
            autoPingRestartOnAnyTraffic=True,
            tcpNoDelay=True,
            failByDrop=True,
        )
    factory.noisy = False
    return factory


def _client_endpoint(endpoint: Endpoint, reactor: Any) -> Any:
    if endpoint.local:
        return UNIXClientEndpoint(reactor, str(endpoint.socket), timeout=CONNECT_DEADLINE)
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(f"{endpoint.url!r} is no router address", remedy="as wss://host:8080/ws")
    if parts.scheme == "ws":
        return TCP4ClientEndpoint(reactor, parts.hostname, parts.port or 80, timeout=CONNECT_DEADLINE)
    trust = _trust_root(endpoint.certificate)
    options: Any
    if endpoint.any_host and endpoint.certificate is not None:
        options = CertificateOptions(trustRoot=trust)
    else:
        options = optionsForClientTLS(parts.hostname, trustRoot=trust)
    return SSL4ClientEndpoint(reactor, parts.hostname, parts.port or 443, options, timeout=CONNECT_DEADLINE)


def _trust_root(certificate: Path | None) -> Any:
    if certificate is None:
        return platformTrust()
    try:
        return Certificate.loadPEM(certificate.read_bytes())
    except OSError as error:
        # Not final: at the first start of a site, a node may be there before the router has made it.
        raise ConnectionFailed(f"the router's certificate {certificate}: {error.strerror}") from None


def _reason_of_loss(protocol: Any) -> Callable[[], str]:
    """Return a function that says why the protocol's connection ended."""
    reason = ["closed"]
    original = protocol.connectionLost

    def lost(failure: Failure) -> None:
        reason[0] = _in_words(failure.value)
        original(failure)

    protocol.connectionLost = lost
    return lambda: reason[0]


def _in_words(error: BaseException | None) -> str:
    if isinstance(error, SSL.Error):
        said = (
            ", ".join(str(entry[-1]) for entry in error.args[0]) if error.args and error.args[0] else "no reason given"
        )
        return f"TLS: {said}"
    return str(error) or type(error).__name__


def _connection_error(endpoint: Endpoint | None, error: Exception) -> ConnectionFailed:
    return ConnectionFailed(
        f"cannot connect to the router at {endpoint}: {_in_words(error)}",
        remedy="is the site running? `sisockdaq up SITE_FILE`",
    )

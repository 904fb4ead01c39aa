"""`Client`, and the sites of this machine that it can reach."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from sisockdaq._wamp.link import Credentials, Endpoint
from sisockdaq.client._asking import Asker, Catalog, Source
from sisockdaq.client._dataset import Dataset, FieldData, FieldRow, Image, NodeRow, Table
from sisockdaq.client._images import archived_image, live_image
from sisockdaq.client._network import Network
from sisockdaq.client._runs import Run, find_ledger, find_writer, list_acquisitions, start_run
from sisockdaq.client._watch import Sample, Watch, WatchPolicy
from sisockdaq.errors import ConfigurationError, DeadlineExceeded, FieldUnknown, NodeNotFound, SisockdaqError
from sisockdaq.schema import FieldList
from sisockdaq.state import StateDirectory, default_state_root, find_state

if TYPE_CHECKING:
    from sisockdaq.frames.ledger import Ledger

__all__ = ["Client", "Dataset", "FieldData", "Image", "Run", "Sample", "Table", "Watch", "known_sites"]


class Client:
    """A connection to a network.

    Parameters
    ----------
    site : str or Path, optional
        Name of a site on this machine, or its state directory. Without it (and without ``url``): the only site of
        this machine.
    url : str, optional
        Router of another machine, ``wss://host:8080/ws``; needs ``secret``.
    user, secret : str, optional
        Default user: ``consumer``, or ``control`` with ``control=True``; default secret: from the state directory.
    control : bool
        Whether to read as the user ``control`` too, on one connection.
    realm, base_uri, certificate : optional
        Of the router at ``url``; ``certificate`` is a PEM file to trust.
    state : StateDirectory, optional
        Instead of ``site``.
    deadline : float
        Longest silence that a call bears [s].

    Raises
    ------
    AuthenticationFailed, ConnectionFailed, ConfigurationError
        Why there is no connection.
    """

    def __init__(
        self,
        site: str | Path | None = None,
        *,
        url: str | None = None,
        user: str | None = None,
        secret: str | None = None,
        control: bool = False,
        realm: str = "sisockdaq",
        base_uri: str = "sisockdaq",
        certificate: Path | str | None = None,
        state: StateDirectory | None = None,
        deadline: float = 10.0,
    ) -> None:
        self._state = None if url else state or _state_of(site)
        if url is not None:
            endpoint = Endpoint(url, realm, base_uri, None, Path(certificate) if certificate else None)
        else:
            assert self._state is not None
            endpoint = Endpoint.of_state(self._state)
        self._given = Credentials(user, secret) if user and secret else None
        main_user = user or ("control" if control else "consumer")
        self._network = Network(endpoint, self._credentials(main_user, secret), deadline=deadline)
        self._control: Network | None = self._network if control or self._state is None else None
        self._catalog = Catalog(self._network)
        self._asker = Asker(self._network, self._catalog)
        self._network.open()
        try:
            for event in ("added", "subtracted"):
                heard = self._network.subscribe(f"consumer.data_node_{event}", self._catalog.forget)
                heard.rejoined = self._catalog.forget
        except BaseException:
            self.close()
            raise

    def nodes(self) -> Table:
        """Return the nodes that the hub lists, a table of `NodeRow`."""
        rows = {
            str(entry["name"]): NodeRow(str(entry["name"]), entry.get("description") or "") for entry in self._hub()
        }
        try:
            status = self._network.call("consumer.get_status")
        except NodeNotFound:
            # An older hub: names and descriptions are all it knows.
            return Table(rows.values())
        for entry in status["nodes"]:
            rows[entry["name"]] = NodeRow(
                entry["name"],
                entry.get("description") or "",
                entry.get("type"),
                entry.get("version"),
                entry.get("uptime"),
                entry.get("last_answer"),
                entry.get("health") or {},
            )
        return Table(rows.values())

    def fields(self, node: str) -> Table:
        """Return a node's fields, a table of `FieldRow`.

        Raises
        ------
        NodeNotFound
            With the nodes that there are.
        """
        listing = self._catalog.listing(node, fresh=True)
        return Table(_field_rows(listing), listing.problems)

    def get(
        self,
        *fields: str,
        start: float = -3600.0,
        end: float = 0.0,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> Dataset:
        """Return the samples of some fields in ``[start, end)``, archived and live in one piece.

        Parameters
        ----------
        *fields : str
            Full names, ``node::field``.
        start, end : float
            Positive: UNIX time; zero or negative: seconds before now. ``start=1`` is all there is.
        max_points : int, optional
            At most so many samples a field; extremes are kept.
        min_stride : float, optional
            Samples at least so far apart [s].

        Raises
        ------
        IntervalError, FieldUnknown, NodeNotFound, DeadlineExceeded, ReplyInvalid
            Where a field cannot be had from anyone. Where only one of its sources fails, ``problems`` says so.
        """
        return self._asker.get(fields, start, end, max_points, min_stride)

    def watch(self, field: str, policy: WatchPolicy = "lossless", *, timeout: float | None = None) -> Watch:
        """Return an iterator over a field's new samples, as they are made; see `Watch`.

        Parameters
        ----------
        field : str
            Full name.
        policy : {"lossless", "latest"}
        timeout : float, optional
            Longest wait for the next sample [s]; without it there is no end to it.
        """
        if policy not in ("lossless", "latest"):
            raise ConfigurationError(f'"{policy}" is not a policy for watching; one of lossless, latest')
        source = self._live_source(field)
        timeline = self._catalog.listing(source.node).timelines.get(source.entry.timeline)
        interval = timeline.interval if timeline else None
        return Watch(self._network, self._asker, field, source, policy=policy, timeout=timeout, interval=interval)

    def wait_for(self, field: str, samples: int = 1, *, deadline: float = 15.0, start: float = 1.0) -> FieldData:
        """Return a field as soon as it has so many samples since ``start``.

        Raises
        ------
        DeadlineExceeded
            With the number there is, or why there is none.
        """
        from sisockdaq.client._patience import patience

        reason = ""
        for _ in patience(deadline):
            try:
                found = self.get(field, start=start)[field]
                if len(found) >= samples:
                    return found
                reason = f"it has {len(found)}"
            except SisockdaqError as error:
                self._catalog.forget()
                reason = error.message
        raise DeadlineExceeded(f"{field} did not get {samples} samples within {deadline:g} s: {reason}")

    def image(
        self, field: str, run: str | Run | None = None, frame: int | None = None, *, folder: str | None = None
    ) -> Image:
        """Return one image.

        Parameters
        ----------
        field : str
            Full name of an array field, ``receiver::image``.
        run : str or Run, optional
            An acquisition; its images come from the archive. Without it: the newest live image.
        frame : int, optional
            Index in the acquisition, from 0; default the first. Without ``run``, of the newest acquisition.
        folder : str, optional
            Where its files are, when acquisitions of that name are in more than one folder.

        Raises
        ------
        FieldUnknown, NodeNotFound, SisockdaqError
        """
        if run is None and frame is None:
            return live_image(self._asker, self._live_source(field), field)
        return archived_image(self._network, self._catalog, field, _name_of(run), frame or 0, folder)

    def acquire(
        self,
        name: str,
        frames: int | None = None,
        *,
        writer: str | None = None,
        directory: str | None = None,
        meta: Mapping[str, Any] | None = None,
        raw: Literal["beside", "instead"] | None = None,
        wait: bool = True,
        progress: bool | None = None,
    ) -> Run:
        """Start an acquisition, and (unless told not to) wait for its end.

        Parameters
        ----------
        name : str
            Of the acquisition and its files.
        frames : int, optional
            Number of frames; None: until `Run.stop`, and then there is no waiting.
        writer : str, optional
            The node that writes; default the only one there is.
        directory : str, optional
            Folder, instead of the writer's own.
        meta : mapping, optional
            Facts for the file, JSON-able.
        raw : str, optional
            Have the detector's packets recorded "beside" or "instead" of images, to be replayed.
        wait : bool
        progress : bool, optional
            Whether to show a progress bar; default: on a terminal.

        Raises
        ------
        AcquisitionRefused
            With every reason.
        """
        chosen = self._writer(writer)
        try:
            run = start_run(self._controlling(), self._network, chosen, name, frames, directory, meta, raw)
        except NodeNotFound:
            self._catalog.listing(chosen, fresh=True)
            raise NodeNotFound(
                f"{chosen} is no file writer", remedy="`sisockdaq nodes` shows the type of each"
            ) from None
        if wait and frames is not None:
            run.wait(progress=progress)
        return run

    def run(self, name: str, *, writer: str | None = None) -> Run:
        """Return an acquisition that was started elsewhere, or is over."""
        return Run(name, self._writer(writer), self._controlling, self._network)

    def acquisitions(self) -> list[dict[str, Any]]:
        """Return what the archives hold: one dictionary an acquisition, with frames, files, span and ledger."""
        return list_acquisitions(self._network, self._catalog)

    def ledger(self, run: str | Run | None = None) -> Ledger:
        """Return the ledger of an acquisition (default: the newest): where every packet and frame went.

        Raises
        ------
        SisockdaqError
            When nobody knows the acquisition, or its ledger is not closed yet.
        """
        if isinstance(run, Run):
            return run.ledger
        return find_ledger(self._network, self._catalog, self._controlling, run)

    def call_control(self, node: str, procedure: str, *args: Any, deadline: float | None = None, **kwargs: Any) -> Any:
        """Call a control procedure of a node, ``B.control.<node>.<procedure>``, as the user ``control``."""
        network = self._controlling()
        try:
            return network.call(f"control.{node}.{procedure}", *args, deadline=deadline, **kwargs)
        except NodeNotFound:
            self._catalog.listing(node, fresh=True)
            raise NodeNotFound(f'{node} has no control procedure "{procedure}"') from None

    def close(self) -> None:
        """Leave the network."""
        for network in {self._network, self._control or self._network}:
            network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hub(self) -> list[dict[str, Any]]:
        self._catalog.forget()
        return self._catalog.nodes()

    def _live_source(self, field: str) -> Source:
        node = field.partition("::")[0]
        for source in self._catalog.sources(field):
            if source.node == node:
                return source
        raise FieldUnknown(f"{field} is archived, but its node {node} does not serve it now")

    def _writer(self, writer: str | None) -> str:
        return writer or find_writer(self._network)

    def _controlling(self) -> Network:
        """Return the connection with control rights, made when it is first needed."""
        if self._control is None:
            credentials = self._credentials("control", None)
            control = Network(self._network.endpoint, credentials, deadline=self._network.deadline)
            control.open()
            self._control = control
        return self._control

    def _credentials(self, user: str, secret: str | None) -> Credentials:
        if secret is not None:
            return Credentials(user, secret)
        if self._state is None:
            raise ConfigurationError(
                f'the router at a URL needs the secret of user "{user}"',
                remedy="give secret=, or set SISOCKDAQ_SECRET for the command line",
            )
        known = self._state.existing_secret(user)
        if known is None:
            raise ConfigurationError(
                f'{self._state.path} holds no secret of user "{user}"', remedy="was the site started by you?"
            )
        return Credentials(user, known)


def known_sites() -> list[str]:
    """Return the names of the sites that have run on this machine."""
    root = default_state_root()
    return sorted(path.parent.name for path in root.glob("*/endpoint.json")) if root.is_dir() else []


def is_running(state: StateDirectory) -> bool:
    """Whether the router of a site on this machine takes connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(state.router_socket))
        except OSError:
            return False
    return True


def _state_of(site: str | Path | None) -> StateDirectory:
    if isinstance(site, Path):
        return StateDirectory(site)
    sites = known_sites()
    if site is not None:
        if site in sites:
            return find_state(site)
        remedy = f"the sites here are {', '.join(sites)}" if sites else "start one with `sisockdaq up SITE_FILE`"
        raise ConfigurationError(f'no site "{site}" has run on this machine', remedy=remedy)
    if len(sites) == 1:
        return find_state(sites[0])
    if not sites:
        raise ConfigurationError(
            "no site has run on this machine", remedy="start one with `sisockdaq up SITE_FILE`, or name a router by URL"
        )
    running = [name for name in sites if is_running(find_state(name))]
    if len(running) == 1:
        return find_state(running[0])
    reason = f"these run: {', '.join(running)}" if running else f"none runs of {', '.join(sites)}"
    raise ConfigurationError(f"which site? {reason}", remedy=f"name one, for example {(running or sites)[0]}")


def _field_rows(listing: FieldList) -> list[FieldRow]:
    rows = []
    for name, entry in listing.fields.items():
        timeline = listing.timelines.get(entry.timeline)
        interval = timeline.interval if timeline else None
        rows.append(FieldRow(name, entry.type, entry.units, entry.timeline, interval, entry.description, entry.shape))
    return rows


def _name_of(run: str | Run | None) -> str | None:
    return run.name if isinstance(run, Run) else run

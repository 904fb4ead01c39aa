"""A receiver's configuration, changed while it runs: all or nothing. A part of `node.DetectorReceiver`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from sisockdaq.nodes.detector_receiver.conversion import JungfrauPart
from sisockdaq.nodes.detector_receiver.kept import KeptConfiguration
from twisted.logger import Logger

from sisockdaq.conversion.runs import DarkRuns
from sisockdaq.detector.configuration import Addresses, changed, to_config
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.receiver import Receiver
from sisockdaq.detector.sockets import open_sockets
from sisockdaq.errors import AcquisitionRefused, ConfigurationError, DeadlineExceeded, SisockdaqError
from sisockdaq.frames import Producer

__all__ = ["Changing"]

FOLLOWED_WITHIN = 10.0
"""Time that writer and integrator get to attach to the frames of a new configuration [s]; they try every 50 ms."""

_LOOK = 0.02
"""Time between two looks at who has attached [s]."""

_log = Logger("sisockdaq.detector_receiver")


class Changing:
    """The node's share that begins anew; the node sets the attributes."""

    options: Any
    detector: DetectorOptions
    jungfrau: JungfrauPart
    receiver: Receiver | None
    _addresses: Addresses
    _changing: threading.Lock
    _kept: KeptConfiguration
    _darks: DarkRuns | None
    _producer: Producer | None
    _broken: str
    _changes: int
    _last: tuple[float, int, int, int] | None
    _image_due: float

    def _begin(self) -> None:
        raise NotImplementedError  # the node's

    def _stop_receiving(self) -> None:
        raise NotImplementedError  # the node's

    def _declare_image(self) -> None:
        raise NotImplementedError  # the node's

    def _jungfrau_part(self, detector: DetectorOptions) -> JungfrauPart:
        raise NotImplementedError  # the node's

    def _under_way(self) -> str | None:
        raise NotImplementedError  # the node's

    def get_config(self) -> dict[str, Any]:
        """Return detector and ports under std-daq's names (role control); see `sisockdaq.detector.configuration`."""
        return to_config(self.detector, self._addresses)

    def set_config(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change detector and ports, all or nothing; return the whole configuration (role control).

        Consumers see the new description without a restart; it is answered once those that take part in acquisitions
        (writer, integrator) have attached again, so that a start may follow at once. The change is kept for the next
        start, until the site file describes another detector.

        Raises
        ------
        ConfigurationError, PortTaken
            With every reason; then all is as it was.
        AcquisitionRefused
            While an acquisition, a dark run or another change is under way.
        DeadlineExceeded
            When a consumer has not followed; the new configuration is in use nevertheless.
        """
        if not self._changing.acquire(blocking=False):
            raise AcquisitionRefused("another change is under way", remedy="wait for its end")
        try:
            detector, addresses = changed(self.detector, self._addresses, changes)
            if (detector, addresses) != (self.detector, self._addresses):
                self._refuse_while_busy()
                self._try_ports(addresses)
                self._jungfrau_part(detector).prepare()  # a pedestal of another shape refuses it before anything stops
                followers = _reporting(self._producer)
                self._replace(detector, addresses)
                self._kept.save(detector, addresses)
                self._wait_for(followers)
            return self.get_config()
        finally:
            self._changing.release()

    def _learn_packet_rows(self) -> None:
        """Begin anew with the packets that a GigaFRoST really sends, where they are not those of the description."""
        receiver = self.receiver
        rows = receiver.other_packet_rows if receiver is not None else None
        if not rows or rows > self.detector.stream_rows or self._under_way():
            return
        if self._changing.acquire(blocking=False):
            try:
                _log.warn("{title} sends packets of {rows} rows: beginning anew", title=self.detector.title, rows=rows)
                self._replace(self.detector.model_copy(update={"packet_rows": rows}), self._addresses)
            finally:
                self._changing.release()

    def _refuse_while_busy(self) -> None:
        if name := self._under_way():
            raise AcquisitionRefused(f"{name} is under way", remedy="wait for its end, or stop it")
        if self._darks is not None and self._darks.status()["active"]:
            raise AcquisitionRefused("a dark run is under way", remedy="wait for its end, or stop it")

    def _try_ports(self, addresses: Addresses) -> None:
        """Open, and let go, the ports that are not this receiver's already."""
        new = [each for each in addresses if each not in self._addresses]
        for one in open_sockets(new, self.options.receive_buffer):
            one.close()

    def _wait_for(self, followers: set[str]) -> None:
        """Wait until these consumers have attached to the frames as they are now."""
        until = time.monotonic() + FOLLOWED_WITHIN
        while missing := followers - _reporting(self._producer):
            if time.monotonic() > until:
                raise DeadlineExceeded(
                    f"{self.detector.title} is configured, but {', '.join(sorted(missing))} did not attach to its "
                    f"frames within {FOLLOWED_WITHIN:g} s",
                    remedy="its log says why; what was started before that is refused",
                )
            time.sleep(_LOOK)

    def _replace(self, detector: DetectorOptions, addresses: Addresses) -> None:
        """Stop what runs and begin anew; when that fails, begin again as it was."""
        before = self.detector, self._addresses
        self._stop_receiving()
        try:
            self._configure(detector, addresses)
        except Exception as error:
            _log.warn("back to {title}: {error}", title=before[0].title, error=error)
            self._broken = f"it could not go back to {before[0].title} after a change: {error}"
            self._configure(*before)
            self._broken = ""
            if isinstance(error, SisockdaqError):
                raise
            raise ConfigurationError(f"{detector.title} cannot be received: {error}") from error

    def _configure(self, detector: DetectorOptions, addresses: Addresses) -> None:
        same_image = (detector.shape, detector.dtype) == (self.detector.shape, self.detector.dtype)
        self.detector, self._addresses = detector, addresses
        self.jungfrau = self._jungfrau_part(detector)
        self._darks = self.jungfrau.runs
        if not same_image:
            self._declare_image()
        self._last, self._image_due = None, 0.0
        self._changes += 1
        self._begin()


def _reporting(producer: Producer | None) -> set[str]:
    """Return the attached consumers that report after an acquisition; who only looks on may come and go."""
    consumers = producer.status()["consumers"] if producer is not None else {}
    return {name for name, each in consumers.items() if each["state"] == "attached" and each.get("reports")}

"""UDP sockets for detector packets: large buffers, trains of packets, clear words when something is refused."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.errors import ConfigurationError, PortTaken

__all__ = ["buffer_warning", "dropped_by_kernel", "granted_buffer", "open_sockets", "take_trains"]

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8
_SOL_UDP = 17
_UDP_GRO = 104
_LARGEST_DATAGRAM = 65507
_RMEM_MAX = Path("/proc/sys/net/core/rmem_max")


def open_sockets(addresses: Sequence[tuple[str, int]], receive_buffer: int) -> list[socket.socket]:
    """Bind one UDP socket an address.

    Parameters
    ----------
    addresses : sequence of (host, port)
        In the order of the detector's streams; port 0 takes any free one.
    receive_buffer : int
        Bytes of receive buffer wanted for each; see `buffer_warning` for what came of it.

    Raises
    ------
    PortTaken
        Names the port and, where the system tells, who holds it.
    ConfigurationError
        When an address is not one of this machine's.
    """
    opened: list[socket.socket] = []
    try:
        for host, port in addresses:
            opened.append(_open(host, port, receive_buffer))
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _open(host: str, port: int, receive_buffer: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        _set_buffer(one, receive_buffer)
        one.setblocking(False)
        one.bind((host, port))
    except OSError as error:
        one.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"UDP port {port} on {host} is taken{_holder(port)}",
                remedy="stop that program, or give the receiver other ports (`udp:` in site.yml)",
            ) from None
        if error.errno == errno.EACCES:
            raise PortTaken(
                f"UDP port {port} on {host} may not be opened by this user", remedy="use ports above 1023"
            ) from None
        raise ConfigurationError(
            f"cannot listen on {host}, UDP port {port}: {error.strerror or error}",
            remedy="name an address of this machine in `udp:` of site.yml",
        ) from None
    return one


def _set_buffer(one: socket.socket, wanted: int) -> None:
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:  # needs CAP_NET_ADMIN
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)


def _holder(port: int) -> str:
    """Return `` by NAME (process N)`` where the system tells who has a UDP port."""
    with suppress(psutil.Error, OSError):
        for entry in psutil.net_connections(kind="udp"):
            if entry.laddr and entry.laddr.port == port and entry.pid:
                return f" by {psutil.Process(entry.pid).name()} (process {entry.pid})"
    return ""


def granted_buffer(one: socket.socket) -> int:
    """Bytes of receive buffer that the kernel granted; it reports twice that, for its own bookkeeping."""
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def buffer_warning(sockets: Sequence[socket.socket], wanted: int) -> str | None:
    """Return a warning that names what was granted and how to raise it; None when all got what was wanted."""
    granted = min(granted_buffer(one) for one in sockets)
    if granted >= wanted:
        return None
    limit = int(_RMEM_MAX.read_text()) if _RMEM_MAX.exists() else granted
    return (
        f"the kernel granted {_size(granted)} of receive buffer, {_size(wanted)} wanted "
        f"(net.core.rmem_max is {_size(limit)}): packets will be lost in bursts"
        f"   → sysctl -w net.core.rmem_max={wanted}"
    )


def _size(count: int) -> str:
    return f"{count / 2**20:.3g} MiB" if count >= 2**20 else f"{count / 1024:.3g} KiB"


def take_trains(sockets: Sequence[socket.socket], options: DetectorOptions) -> bool:
    """Ask the kernel to hand over trains of packets whole (UDP_GRO); returns whether it will.

    Not where a train could hold more than a frame: one stream would then run ahead of the others.
    """
    if _LARGEST_DATAGRAM // options.datagram_bytes > options.packets_per_stream:
        return False
    try:
        for one in sockets:
            one.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def dropped_by_kernel(sockets: Sequence[socket.socket]) -> int:
    """Datagrams that the kernel has dropped so far because a receive buffer was full."""
    total = 0
    for one in sockets:
        with suppress(OSError):
            info = one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
            total += struct.unpack_from("=9I", info)[_MEMINFO_DROPS]
    return total

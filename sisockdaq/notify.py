"""Tell whoever started this process that it is ready: systemd's ``sd_notify`` protocol.

The supervisor, systemd and crossbar all speak it: a datagram of ``KEY=value`` lines to the socket that
``NOTIFY_SOCKET`` names. Without that variable nothing is sent; nothing here ever raises or blocks.
"""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify_ready", "notify_status"]


def notify_ready(status: str = "") -> None:
    """Say that this process now does its work."""
    _send("READY=1\n" + _status_line(status))


def notify_status(status: str) -> None:
    """Say in one line what this process is doing, or why it cannot go on."""
    _send(_status_line(status))


def _status_line(status: str) -> str:
    return f"STATUS={' '.join(status.split())}" if status else ""


def _send(text: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
        to.connect("\0" + address[1:] if address.startswith("@") else address)
        to.send(text.encode()[:4096])

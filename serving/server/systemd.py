"""What systemd passes to a service: sockets that listen already, and a socket for messages."""

from __future__ import annotations

import contextlib
import os
import socket

from serving.errors import AddressError

# See sd_listen_fds(3).
FIRST_DESCRIPTOR = 3


def descriptors() -> list[int]:
    """Return the descriptors of the sockets of the socket unit. The variables that name them are removed.

    Raises:
        AddressError: there are none for this process.
    """
    given = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()) or not given["LISTEN_FDS"].isdecimal():
        raise AddressError(
            "--fd systemd: systemd has passed no socket to this process. "
            "Start the service through a .socket unit, and without a program such as a shell between."
        )
    return list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(given["LISTEN_FDS"])))


def report_ready() -> None:
    """Tell systemd that the service is ready (``Type=notify``). Do nothing if systemd has not started it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        # "@" stands for a name outside the file system.
        notifications.sendto(b"READY=1", "\0" + path[1:] if path.startswith("@") else path)

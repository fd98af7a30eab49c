"""The socket that the service listens on, and the URL of its address."""

from __future__ import annotations

import ipaddress
import socket

from serving.errors import AddressError

# Connections that the kernel holds until a worker accepts them.
BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``. The address ``::`` also accepts IPv4.

    Raises:
        AddressError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only the unspecified address can be both. create_server turns IPv4 off unless it is asked for.
    is_dual = family == socket.AF_INET6 and _is_unspecified(host) and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise AddressError(
            f"cannot listen on {host} port {port}: {reason}. "
            "Choose another address with --host or another port with --port."
        ) from error


def url(host: str, listener: socket.socket) -> str:
    """Return the URL of the service that ``listener`` belongs to."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False

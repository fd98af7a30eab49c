"""The sockets that the service listens on, and the URL of its address."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
from dataclasses import replace

from serving.errors import AddressError, SettingsError
from serving.settings import Settings

# Connections that the kernel holds until a worker accepts them.
BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``. The address ``::`` also accepts IPv4.

    Raises:
        AddressError: the address cannot be used.
    """
    family = _family(host)
    # Only the unspecified address can be both. create_server turns IPv4 off unless it is asked for.
    is_dual = family == socket.AF_INET6 and _is_unspecified(host) and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, "--port", error) from error


def reserve_grpc(settings: Settings) -> Settings:
    """Return the settings with the number of the port for gRPC, and keep the port until this process ends.

    Each worker opens a socket of its own on the port, and the kernel divides the connections among them.

    Raises:
        SettingsError: the packages of gRPC are missing.
        AddressError: the port cannot be used.
    """
    host, port = settings.host, settings.grpc_port
    if port < 0:
        return settings
    if not all(map(importlib.util.find_spec, ("grpc", "grpc_health", "grpc_reflection"))):
        raise SettingsError("--grpc-port needs gRPC: pip install grpcio grpcio-health-checking grpcio-reflection")
    try:
        # Without SO_REUSEPORT this fails if any process listens there, also another service of the same user.
        with socket.socket(_family(host)) as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind((host, port))
            port = first.getsockname()[1]
        with socket.socket(_family(host)) as reserved:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind((host, port))
            reserved.detach()  # It does not listen. It stays open, so that the port stays ours while no worker runs.
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, "--grpc-port", error) from error
    return replace(settings, grpc_port=port)


def _cannot_listen(host: str, port: int, option: str, error: OSError | UnicodeError) -> AddressError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return AddressError(
        f"cannot listen on {host} port {port}: {reason}. "
        f"Choose another address with --host or another port with {option}."
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def url(host: str, listener: socket.socket) -> str:
    """Return the URL of the service that ``listener`` belongs to."""
    return f"http://{name(host, listener.getsockname()[1])}"


def name(host: str, port: int) -> str:
    """Return the address as it is written in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False

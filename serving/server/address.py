"""The sockets that the service listens on, and how clients name them."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from serving.errors import AddressError, SettingsError
from serving.hosts import is_loopback
from serving.server import systemd
from serving.settings import NO_PORT, Settings, flag, variable

# Connections that the kernel holds until a worker accepts them.
BACKLOG = 2048
# The highest descriptor of the standard streams.
LAST_STREAM = 2
# Seconds to wait for an answer from another process at a Unix socket.
PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Listener:
    """A socket that listens, and the address of it that clients use."""

    socket: socket.socket
    address: str

    @property
    def public_host(self) -> str:
        """The address of the socket, if other machines can reach it; otherwise empty."""
        if self.socket.family == socket.AF_UNIX:
            return ""
        host: str = self.socket.getsockname()[0]
        return "" if is_loopback(host) else host


def inherited(settings: Settings) -> list[Listener]:
    """Return the sockets that another process has opened for the service.

    Raises:
        AddressError: one of them is no socket that listens.
    """
    return [_inherited(number, _scheme(settings)) for number in _descriptors(settings.fd)]


@contextlib.contextmanager
def listening(settings: Settings, passed: Iterable[Listener] = ()) -> Iterator[list[Listener]]:
    """Open the other sockets, and yield all of them. Afterwards, remove the path of the Unix socket.

    Args:
        passed: the inherited sockets.

    Raises:
        AddressError: an address cannot be used.
    """
    listeners = list(passed)
    if settings.port != NO_PORT:
        listener = _on_port(settings.host, settings.port)
        listeners.append(Listener(listener, _url(_scheme(settings), settings.host, listener)))
    with contextlib.ExitStack() as stack:
        if settings.uds:
            listeners.append(stack.enter_context(_on_path(settings.uds)))
        yield listeners


def settled(settings: Settings, listeners: list[Listener]) -> Settings:
    """Return ``settings`` whose ``host`` says whether other machines can reach an inherited socket."""
    public = [listener.public_host for listener in listeners if listener.public_host]
    return replace(settings, host=public[0]) if settings.fd and public else settings


def _scheme(settings: Settings) -> str:
    return "https" if settings.tls_cert else "http"


def _on_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``. The address ``::`` also accepts IPv4."""
    family = _family(host)
    # Only the unspecified address can be both. create_server turns IPv4 off unless it is asked for.
    is_dual = family == socket.AF_INET6 and _is_unspecified(host) and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, "port", error) from error


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
        raise _cannot_listen(host, port, "grpc_port", error) from error
    return replace(settings, grpc_port=port)


def _cannot_listen(host: str, port: int, setting: str, error: OSError | UnicodeError) -> AddressError:
    return AddressError(
        f"cannot listen on {host} port {port}: {_reason(error)}. "
        f"Choose another port with {_named(setting)}, or another address with {_named('host')}."
    )


def _named(setting: str) -> str:
    """Return how the operator changes a setting."""
    return f"{flag(setting)} or {variable(setting)}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextlib.contextmanager
def _on_path(path: str) -> Iterator[Listener]:
    """Yield a Unix socket at ``path``. The umask of this process decides who may connect to it."""
    absolute = Path(path).absolute()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _remove_abandoned(absolute)
            listener.bind(str(absolute))
            listener.listen(BACKLOG)
            made = absolute.stat()
        except (OSError, UnicodeError, ValueError) as error:
            raise AddressError(
                f"cannot listen on the Unix socket {path}: {_reason(error)}. Choose another path with {_named('uds')}."
            ) from error
        try:
            yield Listener(listener, f"unix:{absolute}")
        finally:
            # Another process may have replaced the path.
            with contextlib.suppress(OSError):
                if os.path.samestat(made, absolute.stat()):
                    absolute.unlink()


def _remove_abandoned(path: Path) -> None:
    """Remove a socket that a killed process has left behind.

    Raises:
        OSError: another process listens on it, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(None, "there is a file that is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_SECONDS)
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    raise FileExistsError(None, "another process listens on it")


def _descriptors(text: str) -> list[int]:
    return systemd.descriptors() if text == "systemd" else [int(number) for number in text.split(",") if number]


def _inherited(number: int, scheme: str) -> Listener:
    try:
        # The standard streams of a worker are others.
        listener = socket.socket(fileno=number if number > LAST_STREAM else os.dup(number))
    except (OSError, ValueError) as error:
        raise AddressError(f"--fd {number}: is not an inherited socket: {_reason(error)}") from error
    listener.set_inheritable(False)
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()  # It belongs to the process that has passed it.
        raise AddressError(f"--fd {number}: is not a stream socket that listens; with systemd, use Accept=no")
    at = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return Listener(listener, f"unix:{os.fsdecode(at)}")
    return Listener(listener, _url(scheme, at[0], listener))


def _url(scheme: str, host: str, listener: socket.socket) -> str:
    return f"{scheme}://{name(host, listener.getsockname()[1])}"


def name(host: str, port: int) -> str:
    """Return the address as it is written in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _reason(error: Exception) -> object:
    # socket.create_server adds the address to the text of the system. The error of a host name has a number below 0.
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror if isinstance(error, OSError) and error.strerror else error


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False

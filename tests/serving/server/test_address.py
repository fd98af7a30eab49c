"""Unix sockets, and sockets that another process has passed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess

import httpx
import pytest

from serving.api.targets import Hosts
from serving.errors import AddressError, MisdirectedError
from serving.server import address, systemd
from serving.settings import Settings
from tests.serving.server.clients import predict
from tests.support import ADDRESSES, BIN, missing, service, until

# The variables that a service needs where it is not installed.
KEPT = ("PATH", "PYTHONPATH")


def over(path, host="localhost"):
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url=f"http://{host}", timeout=30)


def listening(**settings):
    given = Settings(**settings)
    return address.listening(given, address.inherited(given))


# Unix sockets


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_on_a_unix_socket_alone_removes_it_at_its_end(tmp_path, number):
    path = tmp_path / "digits.sock"
    line = [BIN / "mnist-serve", "--uds", path, "--workers", "1" if number == signal.SIGTERM else "2"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, umask=0o027) as process:
        announced = next(text for text in process.stdout if text.startswith(ADDRESSES))
        assert announced == f"unix:{path}  (stop with Ctrl-C)\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
        # No browser reaches this socket, so a proxy in front of it may send every host name.
        for host in "localhost", "digits.example.org":
            with over(path, host) as client:
                assert predict(client).status_code == 200
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    assert not path.exists()


def test_unix_socket_beside_the_port_allows_every_host_name_and_the_port_does_not(tmp_path):
    path = tmp_path / "digits.sock"
    with service("--uds", path, "--access-log") as (url, _), over(path, "digits.example.org") as client:
        assert predict(client).status_code == 200
        assert httpx.get(f"{url}/v2", headers={"host": "digits.example.org"}).status_code == 421
        assert httpx.get(f"{url}/v2").status_code == 200
    hosts = Hosts(Settings(allowed_hosts="digits.example.org"))
    hosts.check([(b"host", b"digits.example.org")], (str(path), None))
    with pytest.raises(MisdirectedError):
        hosts.check([(b"host", b"other.example.org")], (str(path), None))


def test_abandoned_socket_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "digits.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with listening(port=-1, uds=str(path)) as [listener]:
        assert listener.socket.getsockname() == str(path)
        with pytest.raises(AddressError, match="another process listens on it"), listening(port=-1, uds=str(path)):
            pass
        assert path.exists()
    assert not path.exists()
    path.write_text("a file")
    with pytest.raises(AddressError, match="not a socket"), listening(port=-1, uds=str(path)):
        pass
    assert path.read_text() == "a file"


@pytest.mark.parametrize("path", ["missing/digits.sock", "x" * 200, "a\0b"])
def test_path_that_cannot_be_used_is_named(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AddressError, match=r"cannot listen on the Unix socket .*--uds"), listening(port=-1, uds=path):
        pass


def test_socket_that_another_process_has_put_there_is_not_removed(tmp_path):
    path = tmp_path / "digits.sock"
    with listening(port=-1, uds=str(path)):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()


# Inherited sockets


def test_service_on_inherited_sockets_survives_its_replacement(tmp_path):
    """The sockets stay open between two services, so a client waits and does not fail."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    unix.listen()
    with socket.create_server(("127.0.0.1", 0)) as port, unix:
        descriptors = (port.fileno(), unix.fileno())
        line = [BIN / "mnist-serve", "--fd", ",".join(map(str, descriptors)), "--workers"]
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        for workers in "1", "2":
            with socket.create_connection(port.getsockname(), timeout=60) as early:
                early.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
                with subprocess.Popen(
                    [*line, workers], stdout=subprocess.PIPE, text=True, pass_fds=descriptors
                ) as process:
                    announced = next(text for text in process.stdout if text.startswith(ADDRESSES))
                    assert announced.startswith(f"{url} and unix:{tmp_path / 'socket'} ")
                    assert early.recv(65536).startswith(b"HTTP/1.1 200")
                    with httpx.Client(base_url=url) as client, over(tmp_path / "socket") as local:
                        assert predict(client).status_code == predict(local).status_code == 200
                    process.terminate()
                    assert process.wait(timeout=30) == 0
        assert (tmp_path / "socket").exists()


def test_descriptor_that_is_no_listening_stream_socket_is_rejected(tmp_path):
    with (
        (tmp_path / "file").open("w") as file,
        socket.socket() as silent,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):
        for number in file.fileno(), silent.fileno(), datagrams.fileno(), 999_999:
            with pytest.raises(AddressError, match=f"--fd {number}: is not"):
                address.inherited(Settings(port=-1, fd=str(number)))


def test_inherited_socket_decides_about_host_names_and_the_warning():
    with socket.create_server(("0.0.0.0", 0)) as public, socket.create_server(("127.0.0.1", 0)) as local:
        for given, host in (public, "0.0.0.0"), (local, ""):
            settings = Settings(port=-1, fd=str(given.dup().detach()))
            with address.listening(settings, address.inherited(settings)) as [listener]:
                assert listener.public_host == host
                assert address.settled(settings, [listener]).host == (host or settings.host)
                listener.socket.close()


def test_systemd_passes_sockets_and_is_told_that_the_service_is_ready(tmp_path):
    activate = shutil.which("systemd-socket-activate") or missing("systemd-socket-activate (Debian: systemd)")
    path, notify = tmp_path / "socket", tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(str(notify))
        notifications.settimeout(60)
        variables = {"NOTIFY_SOCKET": notify, **{name: os.environ[name] for name in KEPT if name in os.environ}}
        line = [activate, "--listen", str(path), *(f"--setenv={name}={value}" for name, value in variables.items())]
        line += [str(BIN / "mnist-serve"), "--fd", "systemd", "--workers", "2"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                until(path.exists)
                with over(path) as client:  # The first connection starts the service.
                    assert predict(client).status_code == 200
                assert notifications.recv(100) == b"READY=1"
                assert f"unix:{path} " in process.stdout.readline() + process.stdout.readline()
            finally:
                process.terminate()
                assert process.wait(timeout=30) == 0


def test_systemd_must_have_passed_a_socket_to_this_very_process(monkeypatch, run):
    for_another_process = os.environ | {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    failed = run("mnist-serve", "--fd", "systemd", env=for_another_process)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: --fd systemd: systemd has passed no socket")
    for name, value in ("LISTEN_PID", str(os.getpid())), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b"):
        monkeypatch.setenv(name, value)
    assert systemd.descriptors() == [3, 4]
    assert not any(name.startswith("LISTEN_") for name in os.environ)


def test_name_outside_the_file_system_is_notified(monkeypatch):
    name = f"mnist-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.report_ready()
        assert notifications.recv(100) == b"READY=1"
    systemd.report_ready()  # Nobody listens any more, which does not matter.

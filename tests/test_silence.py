"""The service opens no outgoing connection from start to stop, and its pages load nothing from other hosts.

Nor does it read a file of an optional package that no setting asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support import BIN, ROOT, missing


@pytest.mark.parametrize("options", [[], ["--grpc-port", "0"]], ids=["", "grpc"])
def test_service_opens_no_connection(tmp_path, options):
    strace = shutil.which("strace") or missing("strace")
    trace = tmp_path / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,openat", "-e", "signal=none", "-o", trace]
    home = tmp_path / "home"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, BIN / "mnist-serve", "--port", "0", *options], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        for line in process.stdout:
            if line.startswith("http://"):
                url = line.split()[0]
                break
        else:
            missing("a kernel that permits strace")
        for path in ("/", "/docs", "/schema", "/metrics", "/v2"):
            assert httpx.get(url + path).status_code == 200
        picture = (ROOT / "tests" / "seven.png").read_bytes()
        assert httpx.post(f"{url}/predict", content=picture, headers={"content-type": "image/png"}).status_code == 200
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert ("cygrpc" in Path(f"/proc/{child}/maps").read_text()) == bool(options), "is gRPC loaded?"
    finally:
        # strace ends when the traced process ends.
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        process.communicate(timeout=30)
    # Responses on accepted connections and local sockets are allowed. They carry no address of another host.
    to_other_hosts = [
        line for line in trace.read_text().splitlines() if re.search(r"\bconnect\(.*AF_INET|sin_addr=|sin6_addr=", line)
    ]
    assert to_other_hosts == []
    # Litestar looks for its own plugin, which imports some names of attributes.
    assert not re.search(r"openat\(.*/opentelemetry/(sdk|exporter|proto|trace)\b", trace.read_text())
    # onnxruntime's telemetry would leave a device id in the home folder. Nothing else may write there either.
    assert list(home.rglob("*")) == []


def test_pages_load_nothing_from_other_hosts():
    for file in (ROOT / "serving" / "web").iterdir():
        assert not re.search(rb"https?://|//cdn", file.read_bytes()), file

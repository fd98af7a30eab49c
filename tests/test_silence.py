"""The service opens no outgoing connection and writes no file, and its pages load nothing from other hosts.

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

# Calls that open or change files. Opening a file for reading only is left out below.
FILE_CALLS = "open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,truncate"
CHANGES = re.compile(rf"\b({FILE_CALLS.replace(',', '|')})\(")
READS = re.compile(r"\bopen\w*\((?!.*(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE))")
# What a process may open for writing without leaving anything on a disk.
NO_FILES = re.compile(r'"/dev/(null|tty|shm/[^"]*)"|"/proc/self/[^"]*"|__pycache__|ENOENT|EACCES|EROFS|ENOTDIR')


@pytest.mark.parametrize("options", [[], ["--grpc-port", "0"]], ids=["", "grpc"])
def test_service_opens_no_connection_and_writes_no_file(tmp_path, options):
    strace = shutil.which("strace") or missing("strace")
    trace = tmp_path / "trace"
    calls = f"trace=connect,sendto,sendmsg,{FILE_CALLS}"
    command = [strace, "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", trace]
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
        png = {"content-type": "image/png"}
        assert httpx.post(f"{url}/predict", content=picture, headers=png).status_code == 200
        # Without --feedback, a correction is rejected.
        given = httpx.post(f"{url}/feedback?label=7&consent=yes", content=picture, headers=png)
        assert given.status_code == 403
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert ("cygrpc" in Path(f"/proc/{child}/maps").read_text()) == bool(options), "is gRPC loaded?"
    finally:
        # strace ends when the traced process ends.
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        process.communicate(timeout=30)
    lines = trace.read_text().splitlines()
    assert sum(READS.search(line) is not None for line in lines) > 100, "strace shows the files that are read"
    changes = [line for line in lines if CHANGES.search(line) and not READS.search(line)]
    assert [line for line in changes if not NO_FILES.search(line)] == []
    # Responses on accepted connections and local sockets are allowed. They carry no address of another host.
    to_other_hosts = [line for line in lines if re.search(r"\bconnect\(.*AF_INET|sin_addr=|sin6_addr=", line)]
    assert to_other_hosts == []
    # Litestar looks for its own plugin, which imports some names of attributes.
    assert not re.search(r"openat\(.*/opentelemetry/(sdk|exporter|proto|trace)\b", trace.read_text())
    # onnxruntime's telemetry would leave a device id in the home folder. Nothing else may write there either.
    assert list(home.rglob("*")) == []


def test_pages_load_nothing_from_other_hosts():
    for file in (ROOT / "serving" / "web").iterdir():
        assert not re.search(rb"https?://|//cdn", file.read_bytes()), file

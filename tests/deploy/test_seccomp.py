"""The profile of system calls: the service works under it, and the system calls of an intruder fail."""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support import BIN, PIXELS, ROOT, missing, picture, until

PROFILE = ROOT / "deploy" / "seccomp.json"
CONFINED = [sys.executable, str(Path(__file__).with_name("confined.py")), str(PROFILE)]

# Each line is a system call that the service never makes. It prints the error numbers.
INTRUDER = """
import ctypes, os, socket
library = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    ctypes.set_errno(0)
    print(name, getattr(library, name)(*arguments), ctypes.get_errno())
call("ptrace", 0, 0, 0, 0)
call("unshare", 0x10000000)
call("setns", 0, 0)
call("mount", b"none", b"/mnt", b"tmpfs", 0, None)
call("chroot", b"/")
call("shmget", 0, 4096, 0o1600)
call("msgget", 0, 0o1600)
call("inotify_init")
call("process_vm_readv", os.getpid(), None, 0, None, 0, 0)
call("personality", 0x0040000)
call("syscall", 321, 0, None, 0)  # bpf
call("syscall", 425, 1, None)  # io_uring_setup
call("syscall", 250, 0, -3, 0)  # keyctl
call("syscall", 298, None, 0, -1, -1, 0)  # perf_event_open
call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0)  # clone into a new user namespace
for family in socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG:
    call("socket", int(family), 3, 0)
"""


def confined(*command: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*CONFINED, *map(str, command)], capture_output=True, text=True, timeout=60)
    if done.returncode == 3:
        missing("libseccomp (Debian: libseccomp2)")
    return done


def test_profile_has_only_the_fields_that_docker_and_kubernetes_share():
    profile = json.loads(PROFILE.read_text())
    assert profile.keys() == {"defaultAction", "defaultErrnoRet", "syscalls"}
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    for rule in profile["syscalls"]:
        assert rule.keys() <= {"comment", "names", "action", "args", "errnoRet"}
        assert rule["names"] == sorted(set(rule["names"]))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86-64")
def test_system_calls_of_an_intruder_fail():
    done = confined(sys.executable, "-c", INTRUDER)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 19
    for name, result, error in lines:
        # ENOSYS: the filter's answer, and not that of the kernel.
        assert (result, error) == ("-1", "38"), name


def test_service_with_two_workers_works_under_the_profile():
    confined(sys.executable, "-c", "")
    line = [*CONFINED, str(BIN / "mnist-serve"), "--port", "0", "--workers", "2"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = next(text.split()[0] for text in process.stdout if text.startswith("http://"))
            until(lambda: ready(url))
            noise = np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8)
            with httpx.Client(base_url=url, timeout=60) as client:
                for format in "PNG", "JPEG", "GIF", "WEBP", "BMP":
                    for image in noise[:64, :64], noise:
                        response = client.post("/predict", files={"picture": picture(image, format)})
                        assert response.status_code == 200, (format, image.shape, response.text)
                assert client.post("/predict", content=bytes(784 * 300), headers=PIXELS).status_code == 200
                assert client.post("/v2/repository/index").status_code == 200
                assert "mnist_predictions_total" in client.get("/metrics").text
            decoders = [pid for pid in descendants(process.pid) if "serving.pictures.process" in command(pid)]
            assert decoders
            for decoder in decoders:
                # Its own limits apply: of memory, and of what a crash may write.
                assert os.getpriority(os.PRIO_PROCESS, decoder) == os.getpriority(os.PRIO_PROCESS, 0) + 10
                assert resource.prlimit(decoder, resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
                assert resource.prlimit(decoder, resource.RLIMIT_CORE) == (0, 0)
                assert Path(f"/proc/{decoder}/oom_score_adj").read_text() == "1000\n"
            for pid in process.pid, *descendants(process.pid):
                assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=40) == 0
            log = process.stderr.read()
            assert '"level":"error"' not in log, log
            assert "Traceback" not in log, log
        finally:
            process.kill()


def test_subprocess_with_limits_works_under_the_profile():
    """A child with lower limits and priority, and pipes to it, as for work that may have to be killed."""
    program = """
import os, resource, signal, subprocess, sys, threading
child = (
    "import os, resource, sys; os.setpriority(0, 0, 10); resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)); "
    "resource.setrlimit(resource.RLIMIT_CPU, (9, 9)); sys.stdout.write(sys.stdin.read())"
)
options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
with subprocess.Popen([sys.executable, "-c", child], **options) as process:
    assert process.communicate(b"digits", timeout=30)[0] == b"digits"
with subprocess.Popen([sys.executable, "-c", "input()"], **options) as process:
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -9
thread = threading.Thread(target=os.getpid)
thread.start(), thread.join()
"""
    done = confined(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


def descendants(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found += [child, *descendants(child)]
    return found


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False

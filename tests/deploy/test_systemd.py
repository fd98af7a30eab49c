"""The units for systemd: how much they protect, and that the service works within what they allow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving.settings import Settings
from tests.deploy.tools import DEPLOY, run, tool
from tests.support import ADDRESSES, BIN, PIXELS, missing, picture

UNITS = DEPLOY / "systemd"
SERVICE = UNITS / "mnist-service.service"
CONFINED = Path(__file__).with_name("confined.py")
EPERM = 1
WRITE, EXECUTE = 2, 4


@pytest.fixture(scope="module")
def analyze():
    return tool("systemd-analyze", "Debian: systemd")


def values(file, name):
    """Return the values of all lines of this name in a unit."""
    return re.findall(rf"^{name}=(.*)$", file.read_text(), re.MULTILINE)


def test_exposure_of_the_service_is_low(analyze):
    done = run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", SERVICE)
    assert done.returncode == 0, done.stdout + done.stderr
    [level] = re.findall(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert float(level) < 2


def test_units_are_valid(analyze, tmp_path):
    for unit in UNITS.iterdir():
        # systemd looks for the program.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/mnist-service/bin/mnist-serve", "/bin/true"))
    done = run(analyze, "verify", *tmp_path.iterdir())
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_starts_a_command_and_waits_long_enough_for_its_end():
    from serving.cli import serve

    [line] = values(SERVICE, "ExecStart")
    command, *arguments = line.split()
    assert command.endswith("/bin/mnist-serve")
    given = serve.make_context("mnist-serve", arguments).params
    assert given["fd"] == "systemd"
    assert int(values(SERVICE, "TimeoutStopSec")[0]) > Settings.drain + Settings.grace
    assert values(SERVICE, "Requires") == values(SERVICE, "After") == ["mnist-service.socket"]


def calls(analyze, names):
    """Return the system calls in a list of calls and of groups such as @system-service."""
    found = set()
    for name in names:
        if name.startswith("@"):
            lines = run(analyze, "syscall-filter", name).stdout.splitlines()[1:]
            found |= calls(analyze, [line.strip() for line in lines if line.strip() and "#" not in line])
        else:
            found.add(name)
    return found


def profile(analyze):
    """Return the limits of the unit that systemd sets with seccomp, as a profile."""
    allowed = calls(analyze, ["@default"])
    for value in values(SERVICE, "SystemCallFilter"):
        named = calls(analyze, value.removeprefix("~").split())
        allowed = allowed - named if value.startswith("~") else allowed | named
    # RestrictAddressFamilies and MemoryDenyWriteExecute: these calls are allowed with some arguments only.
    conditions = {
        "socket": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}],
        "mprotect": [{"index": 2, "op": "SCMP_CMP_MASKED_EQ", "value": EXECUTE, "valueTwo": 0}],
        "mmap": [
            {"index": 2, "op": "SCMP_CMP_MASKED_EQ", "value": WRITE | EXECUTE, "valueTwo": either}
            for either in (0, WRITE, EXECUTE)
        ],
    }
    rules = [{"names": sorted(allowed - {*conditions, "shmat", "pkey_mprotect"}), "action": "SCMP_ACT_ALLOW"}]
    rules += [
        {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}
        for name, arguments in conditions.items()
        for argument in arguments
    ]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": rules}


def test_service_works_with_the_system_calls_of_the_unit(analyze, tmp_path):
    assert values(SERVICE, "RestrictAddressFamilies") == ["AF_UNIX"]
    assert values(SERVICE, "MemoryDenyWriteExecute") == ["yes"]
    (tmp_path / "profile.json").write_text(json.dumps(profile(analyze)))
    confined = [sys.executable, str(CONFINED), str(tmp_path / "profile.json")]
    intruder = "import mmap, socket\nfor f in (lambda: socket.socket(), lambda: mmap.mmap(-1, 9, prot=7)):\n try: f()\n"
    intruder += " except PermissionError as error: print(error.errno)"
    done = run(*confined, sys.executable, "-c", intruder)
    if done.returncode == 3:
        missing("libseccomp (Debian: libseccomp2)")
    assert done.stdout.split() == [str(EPERM)] * 2, done.stderr
    # With an inherited socket, as from systemd. The unit allows none of another family.
    path = tmp_path / "socket"
    line = [*confined, BIN / "mnist-serve", "--uds", path, "--workers", "2"]
    with subprocess.Popen(list(map(str, line)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert any(text.startswith(ADDRESSES) for text in process.stdout), process.stderr.read()
            noise = np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8)
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x", timeout=60) as client:
                assert client.post("/predict", content=bytes(784), headers=PIXELS).status_code == 200
                for format in "PNG", "JPEG":
                    response = client.post("/predict", files={"picture": picture(noise, format)})
                    assert response.status_code == 200, response.text
                assert client.get("/metrics").status_code == 200
        finally:
            process.terminate()
            _, log = process.communicate(timeout=40)
    assert process.returncode == 0
    assert '"level":"error"' not in log, log
    assert "Traceback" not in log, log

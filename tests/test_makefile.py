"""The Makefile says which Python it needs, and replaces an environment that was left unfinished."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT


def make(*arguments):
    return subprocess.run(["make", "-C", str(ROOT), *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("target", "variable"), [("serve", "SERVE_VENV"), ("setup", "VENV"), ("check", "VENV")])
def test_older_python_is_one_line_and_makes_no_environment(target, variable, tmp_path):
    older = tmp_path / "python3.10"
    older.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10, 1); $2"\n')
    older.chmod(0o755)
    done = make(f"PYTHON={older}", f"{variable}={tmp_path / 'venv'}", target)
    first = done.stderr.splitlines()[0]
    assert first == f"Python 3.11 or newer is needed, this is 3.10; use make PYTHON=python3.12 {target}"
    assert done.returncode == 2
    assert "installing" not in done.stdout
    assert not (tmp_path / "venv").exists()


def test_only_an_unfinished_environment_is_cleared(tmp_path):
    def shown():
        return make("--dry-run", "--always-make", f"SERVE_VENV={tmp_path}", "serve").stdout

    assert f"-m venv --clear {tmp_path}\n" in shown()
    (tmp_path / ".complete").touch()
    assert f"-m venv  {tmp_path}\n" in shown()


def test_setup_ends_with_the_next_step(tmp_path):
    (tmp_path / ".complete").touch()
    for target, says in (("setup", True), ("check", False)):
        assert ("Next: ." in make("--dry-run", f"VENV={tmp_path}", target).stdout) == says

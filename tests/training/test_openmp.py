"""The threads of torch sleep while they wait, unless the user wants something else."""

from __future__ import annotations

import os

import pytest

from training.openmp import sleep_while_waiting


@pytest.mark.parametrize(("own", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_while_they_wait_unless_the_user_decides(monkeypatch, own, expected):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_command_decides_before_it_imports_torch(run, tmp_path):
    # OpenMP prints its settings when torch loads it.
    environment = os.environ | {"OMP_DISPLAY_ENV": "true"}
    environment.pop("OMP_WAIT_POLICY", None)
    # The command ends before it trains, because there is no such device.
    done = run("mnist-train", "--device", "nonsense", env=environment)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr

"""Settings of the process that make commands faster: OpenMP's threads, and Python's garbage collector."""

from __future__ import annotations

import gc
import os

import pytest
import torch

from training.memory import no_garbage_collection
from training.networks import build, multiplications
from training.openmp import at_most_threads, sleep_while_waiting, threads_for


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


def test_small_steps_take_one_thread_and_large_ones_all(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    small, large = (multiplications(build(model)) * 128 for model in ("mlp", "cnn-small"))
    assert threads_for(small) == 1
    assert threads_for(large) == 8


def test_threads_are_limited_for_the_block_only():
    before = torch.get_num_threads()
    with at_most_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with at_most_threads(before + 1):
        assert torch.get_num_threads() == before


def test_garbage_is_collected_again_after_the_imports():
    with no_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()

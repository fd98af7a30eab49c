"""The benchmark of GPU training: without a GPU it ends with one line and writes nothing."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu import FAST, GOALS, main
from training.config import TrainConfig


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_the_benchmark_ends_with_one_line(tmp_path):
    done = CliRunner().invoke(main, ["--save", str(tmp_path / "gpu.md")])
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "Error: torch finds no NVIDIA GPU here; nothing is measured, and no file is written"
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", GOALS)
def test_settings_of_every_goal_are_valid(name):
    assert TrainConfig(**GOALS[name].settings | FAST).epochs >= 1

"""The benchmark of GPU training: its table of whole commands, and its end on a machine without a GPU."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu
from benchmarks.gpu import FAST, GOALS, main
from benchmarks.training import Measured
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


def test_whole_commands_are_timed(monkeypatch):
    def whole_process(*command):
        output = command[-1]
        output.mkdir()
        (output / "run.json").write_text(json.dumps({"seconds": 1.5}))
        return Measured(seconds=4.0, cpu=5.0), ""

    monkeypatch.setattr(gpu, "whole_process", whole_process)
    _, _, *lines = gpu.command_lines()
    assert lines[0] == "| `mnist-train --device cuda` | 1.5 | 4.0 |"
    assert len(lines) == 3

"""--precision auto: the faster precision is chosen, and the run keeps it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.training.support import FAST, Stop, equal, weights
from training import checkpoint, precision
from training.config import AUTO, RECIPES, TrainConfig
from training.loop.resume import resumed_config
from training.loop.train import train
from training.precision import choose_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def fake_times(monkeypatch, single, half):
    monkeypatch.setattr(precision, "step_seconds", lambda _: (single, half))


@pytest.mark.parametrize(
    ("single", "half", "chosen"),
    [(0.016, 0.012, "bfloat16"), (0.016, 0.11, "float32"), (0.016, 0.016, "float32"), (0.016, 0.0159, "float32")],
)
def test_faster_precision_is_chosen_on_a_cpu_and_equal_speed_means_float32(monkeypatch, single, half, chosen):
    fake_times(monkeypatch, single, half)
    choice = choose_precision(TrainConfig(), CPU)
    assert choice.precision == chosen
    assert f"a step takes {1000 * (half if chosen == 'bfloat16' else single):.0f} ms in {chosen} and" in choice.reason


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_gpu_decides_by_its_instructions(monkeypatch, supported, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert choose_precision(TrainConfig(), GPU).precision == chosen
    assert choose_precision(TrainConfig(), torch.device("mps")).precision == "float32"


def test_measurement_takes_no_random_numbers_of_the_run():
    before = torch.get_rng_state()
    assert choose_precision(TrainConfig(model="mlp"), CPU).precision in ("float32", "bfloat16")
    assert torch.equal(torch.get_rng_state(), before)


def test_cpu_without_bfloat16_instructions_takes_float32():
    """A limit on the instructions acts like an older CPU, where bfloat16 takes several times as long."""
    program = (
        "import torch; from training.config import TrainConfig; from training.precision import choose_precision; "
        "print(choose_precision(TrainConfig(model='cnn-speed'), torch.device('cpu')))"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "precision='float32'" in done.stdout


def test_slow_precision_is_tried_with_few_images_only(monkeypatch):
    sizes = []

    def normalized(images):
        sizes.append(len(images))
        # This takes the place of slow kernels, on processors that have fast ones.
        if torch.is_autocast_enabled("cpu"):
            torch.randn(1000, 1000) @ torch.randn(1000, 2000)
        return precision.IMAGE_SIZE * images.float().unsqueeze(1)

    monkeypatch.setattr(precision, "normalize", normalized)
    single, half = precision.step_seconds(TrainConfig(model="mlp"))
    assert half > precision.CLEARLY_SLOWER * single
    assert set(sizes) == {precision.FEW}


def test_recipes_leave_the_precision_to_the_machine_unless_it_is_given():
    for recipe in ("speed", "best"):
        assert TrainConfig.of(recipe=recipe).precision == AUTO
        for given in ("float32", "bfloat16"):
            assert TrainConfig.of(recipe=recipe, precision=given).precision == given
    assert RECIPES["best"]["mlp"]["precision"] == TrainConfig().precision == "float32"


class Lines(Stop):
    """Takes the place of Progress and keeps the lines."""

    def __init__(self, step=0):
        super().__init__(step)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


@pytest.mark.usefixtures("no_plots")
def test_run_keeps_the_precision_that_it_began_with(small, tmp_path, monkeypatch):
    fake_times(monkeypatch, 2, 1)
    config, lines = TrainConfig(**FAST, precision=AUTO), Lines(5)
    train(replace(config, precision="bfloat16"), small, tmp_path / "given")
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", progress=lines, checkpoint_every=1)
    reason = "a step takes 1000 ms in bfloat16 and 2000 ms in float32 on this CPU"
    assert lines.lines[0] == f"precision: bfloat16, because {reason}"
    # Now float32 would be chosen.
    fake_times(monkeypatch, 1, 2)
    last = tmp_path / "run" / "last.pt"
    assert checkpoint.load(last)["config"]["precision"] == "bfloat16"
    assert resumed_config(last, {"precision": AUTO}) == replace(config, precision="bfloat16")
    train(config, small, tmp_path / "run", resume=True, progress=(more := Lines()))
    assert not any(line.startswith("precision") for line in more.lines)
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "given"))
    for folder, expected in ("run", reason), ("given", "it was set"):
        record = json.loads((tmp_path / folder / "run.json").read_text())
        assert (record["config"]["precision"], record["precision_reason"]) == ("bfloat16", expected)

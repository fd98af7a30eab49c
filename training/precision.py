"""The precision of ``--precision auto``: bfloat16 where it makes a step faster, float32 elsewhere."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
import torch.nn.functional as F

from training.config import TrainConfig
from training.networks import CLASSES, IMAGE_SIZE, autocast, build, normalize

# A processor that lacks instructions for bfloat16 emulates them, and its steps are up to ten times as slow. Its flags
# do not tell all: oneDNN can be limited to older instructions, and some have instructions of other names. So both
# precisions take a few steps.
ROUNDS = 3
BATCH = 128
# They begin with few images: with the emulation, a step of a whole batch takes up to half a second.
FEW = 16
# bfloat16 has to be faster by a twentieth. Otherwise equal speeds would be decided by chance.
LEAST_GAIN = 0.95
# bfloat16 is not tried with whole batches if it takes this many times as long with few images.
CLEARLY_SLOWER = 2


class Choice(NamedTuple):
    """A precision and the reason for it."""

    precision: str
    reason: str


def choose_precision(config: TrainConfig, device: torch.device) -> Choice:
    """Return the faster precision for the network of ``config`` on ``device``."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bfloat16", "the GPU has instructions for it")
        return Choice("float32", "the GPU has no instructions for bfloat16")
    if device.type != "cpu":
        return Choice("float32", f"bfloat16 was not tried on {device.type}")
    single, half = step_seconds(config)
    faster, slower = ("bfloat16", "float32") if half < LEAST_GAIN * single else ("float32", "bfloat16")
    times = {"float32": f"{1000 * single:.0f} ms", "bfloat16": f"{1000 * half:.0f} ms"}
    return Choice(faster, f"a step takes {times[faster]} in {faster} and {times[slower]} in {slower} on this CPU")


def step_seconds(config: TrainConfig) -> tuple[float, float]:
    """Return the seconds of a forward and a backward pass on the CPU in float32 and in bfloat16, the best of a few.

    They are those of BATCH images. If bfloat16 is clearly slower with a few images, they are estimated from these.
    """
    with torch.random.fork_rng(devices=[]):
        network = build(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.randint(256, (BATCH, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
        labels = torch.randint(CLASSES, (BATCH,))

    def seconds(precision: str, count: int) -> float:
        started = time.perf_counter()
        with autocast(precision, images.device):
            logits = network(normalize(images[:count])).float()
        F.cross_entropy(logits, labels[:count]).backward()
        return time.perf_counter() - started

    for count in (FEW, BATCH):
        best = {"float32": float("inf"), "bfloat16": float("inf")}
        for precision in best:
            seconds(precision, count)  # The first step also compiles the kernels.
        for _ in range(ROUNDS):
            # They take turns, so that other load on the machine meets both.
            for precision in best:
                best[precision] = min(best[precision], seconds(precision, count) * BATCH / count)
        if best["bfloat16"] > CLEARLY_SLOWER * best["float32"]:
            break
    return best["float32"], best["bfloat16"]

"""Helpers of the tests of training runs: short settings, pictures, the content of run folders, and an interruption."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import torch
from PIL import Image

from tests.support import picture
from training import checkpoint

# Settings of a run of about a second. With 256 images it takes four steps per epoch.
FAST = {"model": "mlp", "epochs": 2, "batch_size": 64}


def bar(angle, variant):
    """A page with a line at an angle."""
    page = Image.new("L", (40, 40), 255)
    page.paste(0, (18, 4 + variant % 5, 22 + variant % 3, 36))
    return np.asarray(page.rotate(angle + variant / 3, fillcolor=255))


def draw_bars(folder, angles, count=12):
    """Draw pictures of lines, into a folder for each class. ``angles`` has the angle of each class by its name."""
    for name, angle in angles.items():
        (folder / name).mkdir(parents=True)
        for variant in range(count):
            (folder / name / f"{variant}.png").write_bytes(picture(bar(angle, variant)))


def first(digits, count):
    return digits.take(torch.arange(count))


def weights(folder):
    return checkpoint.load(folder / "model.pt")["weights"]


def equal(a, b):
    """Whether two state dicts are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(rows):
    """The rows without their times, which differ between equal runs."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


class Stop:
    """Takes the place of Progress and raises KeyboardInterrupt after step ``step``, before the step is saved."""

    def __init__(self, step):
        self.at = step

    def begin(self, total_steps, done_steps):
        pass

    def step(self, epoch, step, loss, rate):
        if step == self.at:
            raise KeyboardInterrupt

    def line(self, text):
        pass

    def stage(self, name):
        return lambda share: None

    def waiting(self, name, **_):
        return nullcontext()

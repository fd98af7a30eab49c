"""What pupils are shown: augmented images, and what their teachers say of them.

Several pupils of the same teachers may share this work. A lesson is an epoch of augmented images with the
answers to them, 50 MB for MNIST, made by the first run that needs it and kept beside the first teacher; which it is
depends on its number, the teachers and the settings, not on the run's seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.augment.affine import augment
from training.config import TrainConfig
from training.data.digits import Digits
from training.distill.ensemble import Ensemble
from training.networks import normalize

# Images at a time, when a lesson is made.
CACHE_BATCH = 200
# What of the settings makes a lesson what it is, beside its teachers and its images.
SETTINGS = ("augment", "elastic", "contrast", "erase", "precision")


def augmented(config: TrainConfig, images: Tensor, generator: torch.Generator) -> Tensor:
    """The images changed at random as the settings say."""
    if not (config.augment or config.elastic or config.erase):
        return images
    return augment(
        images,
        generator,
        strength=config.augment,
        elastic=config.elastic,
        contrast=config.contrast,
        erase=config.erase,
    )


def arithmetic(config: TrainConfig, inputs: Tensor) -> AbstractContextManager[object]:
    """The precision that the settings ask for."""
    return torch.autocast(inputs.device.type, torch.bfloat16) if config.precision == "bfloat16" else nullcontext()


def ask(config: TrainConfig, teacher: Ensemble, images: Tensor) -> Tensor:
    """The teachers' log-probabilities ``[N, C]`` for images in 0..255 ``[N, 28, 28]``."""
    with torch.no_grad(), arithmetic(config, images):
        answers: Tensor = teacher(normalize(images))
    return answers.float()


class TeacherCache:
    """The lessons of one set of teachers on one set of images.

    Args:
        digits: the training images, on the device of the teachers.
    """

    def __init__(self, config: TrainConfig, teacher: Ensemble, digits: Digits) -> None:
        self._config, self._teacher, self._digits = config, teacher, digits
        first, *_ = teacher.digests
        settings = [getattr(config, name) for name in SETTINGS]
        digest = hashlib.sha256(json.dumps([settings, sorted(teacher.digests.values())]).encode())
        digest.update(digits.images.cpu().numpy().tobytes())
        self.folder = Path(first) / "lessons" / digest.hexdigest()[:12]

    def __getitem__(self, number: int) -> Digits:
        """The images of lesson ``number`` with the answers to them, in the order of the training images.

        Raises:
            CheckpointError: the file of an earlier run is damaged.
            OSError: it could not be written.
        """
        path = self.folder / f"{number}.pt"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save(path, self._make(number))
        saved = checkpoint.load(path)
        device = self._digits.labels.device
        return dataclasses.replace(self._digits, images=saved["images"].to(device), answers=saved["answers"].to(device))

    def _make(self, number: int) -> dict[str, Tensor]:
        # A CRC, for neighbouring seeds give torch's generator related beginnings.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.folder.name}, lesson {number}".encode()))
        images, answers = [], []
        for part in self._digits.split(CACHE_BATCH):
            changed = augmented(self._config, part.images, generator).round().to(torch.uint8)
            images.append(changed.cpu())
            answers.append(ask(self._config, self._teacher, changed).cpu())
        return {"images": torch.cat(images), "answers": torch.cat(answers)}

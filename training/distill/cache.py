"""The teacher cache: epochs of augmented images with the teachers' soft labels, stored for all students.

An epoch takes 50 MB for MNIST. The first run that needs an epoch computes it and stores it in the run folder of the
first teacher, as ``teacher-cache/<digest>/<number>.pt``. A cached epoch depends on its number, the teachers, the
images, the augmentation and the precision. It does not depend on the seed of the run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.augment.affine import augment
from training.checkpoint import CheckpointError
from training.config import TrainConfig
from training.data.digits import Digits
from training.distill.ensemble import Ensemble

FOLDER = "teacher-cache"
# Number of images that are augmented and given to the teachers at a time.
CACHE_BATCH = 200
# The settings that a cached epoch depends on.
SETTINGS = ("augment", "rotate", "mirror", "elastic", "contrast", "precision")


class TeacherCache:
    """The cached epochs of one set of teachers and one set of images.

    Args:
        digits: the training images, on the device of the teachers.
    """

    def __init__(self, config: TrainConfig, teacher: Ensemble, digits: Digits) -> None:
        self._config, self._teacher, self._digits = config, teacher, digits
        first_teacher, *_ = teacher.digests
        settings = [getattr(config, name) for name in SETTINGS]
        what = [settings, sorted(teacher.digests.values()), *([teacher.order] if teacher.order else [])]
        digest = hashlib.sha256(json.dumps(what).encode())
        digest.update(digits.images.cpu().numpy().tobytes())
        self.folder = Path(first_teacher) / FOLDER / digest.hexdigest()[:12]

    def __getitem__(self, epoch: int) -> Digits:
        """Return the augmented images of ``epoch`` with soft labels, in the order of the training images.

        After the last cached epoch, the cached epochs are used again from the first.

        Raises:
            OSError: the file could not be read or written.
        """
        number = epoch % self._config.teacher_cache
        path = self.folder / f"{number}.pt"
        try:
            saved = checkpoint.load(path)
        except (FileNotFoundError, CheckpointError):  # It is not there yet, or it is damaged.
            saved = self._make(number)
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save(path, saved)
        device = self._digits.labels.device
        return dataclasses.replace(
            self._digits, images=saved["images"].to(device), soft_labels=saved["soft_labels"].to(device)
        )

    def _make(self, number: int) -> dict[str, Tensor]:
        config = self._config
        # torch's generator gives related numbers for neighbouring seeds. The CRC spreads them.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.folder.name}, epoch {number}".encode()))
        images, soft_labels = [], []
        for batch in self._digits.split(CACHE_BATCH):
            changed = augment(batch.images, generator, **config.augmentation()).round().to(torch.uint8)
            images.append(changed.cpu())
            soft_labels.append(self._teacher.soft_labels(config, changed).cpu())
        return {"images": torch.cat(images), "soft_labels": torch.cat(soft_labels)}

"""The teacher cache: students of the same teachers share augmented images and soft labels."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from tests.training.support import FAST
from training import checkpoint
from training.config import TrainConfig
from training.distill.cache import TeacherCache
from training.distill.ensemble import Ensemble
from training.loop.train import train
from training.networks import normalize

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def folder(teacher, tmp_path):
    """A copy of the teacher's run folder, to hold a cache, without the caches that other tests have left in it."""
    return shutil.copytree(teacher, tmp_path / "teacher", ignore=shutil.ignore_patterns("teacher-cache"))


def test_students_share_the_cached_epochs(small, tmp_path, folder, monkeypatch):
    """A run has three epochs, and the cache has two. The second student has another seed and runs no teacher."""
    settings = FAST | {"epochs": 3, "teacher": str(folder), "teacher_weight": 1.0, "teacher_cache": 2}
    first_student = train(TrainConfig(**settings), small, tmp_path / "first")
    files = sorted((folder / "teacher-cache").glob("*/*"))
    assert [file.name for file in files] == ["0.pt", "1.pt"]
    epoch, other = (checkpoint.load(file) for file in files)
    assert not torch.equal(epoch["images"], other["images"])
    assert torch.equal(epoch["soft_labels"], Ensemble.load([folder])(normalize(epoch["images"])))

    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "soft_labels", None)
        second_student = train(TrainConfig(**settings, seed=1), small, tmp_path / "second")
    assert not torch.equal(first_student.logits, second_student.logits)


def test_other_augmentation_makes_another_cache(small, folder):
    config = TrainConfig(**FAST, teacher=str(folder), teacher_cache=1)
    teacher = Ensemble.load([folder])
    others = {"augment": 0.5}, {"rotate": 0.0}, {"mirror": "horizontal"}
    caches = [TeacherCache(replace(config, **other), teacher, small.train) for other in ({}, *others)]
    assert len({cache.folder for cache in caches}) == 4
    usual, *changed = [cache[0].images for cache in caches]
    assert not any(torch.equal(images, usual) for images in changed)


def test_cache_without_augmentation_holds_the_training_images(small, tmp_path, folder):
    train(TrainConfig(**FAST, augment=0, teacher=str(folder), teacher_cache=1), small, tmp_path / "run")
    [file] = (folder / "teacher-cache").glob("*/*")
    assert torch.equal(checkpoint.load(file)["images"], small.train.images)

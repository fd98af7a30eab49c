"""A student learns from its teachers."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.training.support import FAST, Stop, equal, weights
from training.config import TrainConfig
from training.data.digits import Digits
from training.distill.ensemble import Ensemble
from training.evaluate import evaluate
from training.loop.errors import TrainingError
from training.loop.train import train

pytestmark = pytest.mark.usefixtures("no_plots")


def test_student_learns_from_the_teacher_and_not_from_the_labels(small, tmp_path, teacher):
    """All labels are 0, so a student can learn the other digits only from the teacher."""
    unlabelled = replace(small, train=Digits(small.train.images, torch.zeros_like(small.train.labels)))
    settings = FAST | {"epochs": 40, "augment": 0.0, "learning_rate": 0.005, "teacher": str(teacher)}
    student = train(TrainConfig(**settings, teacher_weight=1.0), unlabelled, tmp_path / "student")
    theirs = evaluate(Ensemble.load([teacher]), small.test)
    assert (student.predictions == theirs.predictions).float().mean() > 0.8
    alone = train(TrainConfig(**settings, teacher_weight=0.0), unlabelled, tmp_path / "alone")
    assert (alone.predictions == 0).all()


def test_distillation_temperature_has_an_effect(small, tmp_path, teacher):
    for temperature in (1.0, 8.0):
        config = TrainConfig(**FAST, teacher=str(teacher), distillation_temperature=temperature)
        train(config, small, tmp_path / str(temperature))
    assert not equal(weights(tmp_path / "1.0"), weights(tmp_path / "8.0"))


def test_teachers_are_recorded_and_must_stay_the_same(small, tmp_path, teacher):
    other = tmp_path / "other"
    train(TrainConfig(**FAST), small, other)
    config = TrainConfig(**FAST, teacher=f"{teacher},{other}")
    train(config, small, tmp_path / "whole")
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["teachers"] == {
        str(folder): hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest() for folder in (teacher, other)
    }
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", checkpoint_every=1, progress=Stop(3))
    # The same teachers from another place, in another order.
    moved = shutil.copytree(other, tmp_path / "moved")
    train(TrainConfig(**FAST, teacher=f"{moved}/,{teacher}"), small, tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    (other / "model.pt").write_bytes((teacher / "model.pt").read_bytes())
    with pytest.raises(TrainingError, match=r"--teacher .*other.model\.pt was changed after the training"):
        train(config, small, tmp_path / "new")
    (other / "run.json").write_bytes((teacher / "run.json").read_bytes())
    with pytest.raises(TrainingError, match=r"--teacher .*: the run in .*run had other teachers"):
        train(config, small, tmp_path / "run", resume=True)


def test_teacher_without_a_finished_run_is_rejected(small, tmp_path):
    config = TrainConfig(**FAST, teacher=str(tmp_path / "nobody"))
    with pytest.raises(TrainingError, match=r"--teacher .*nobody: has no model\.pt; name a finished run folder"):
        train(config, small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("abcdefghij", "has the classes 0, 1, 2, 3, 4 and 5 more and lacks the classes a, b, c, d, e and 5 more"),
        ("012345678", "has the class 9"),
        ("0123456789a", "lacks the class a"),
    ],
)
def test_teacher_of_other_classes_is_rejected(small, tmp_path, labels, reason):
    """As many classes are not the same ones: the student would learn a wrong name for each."""
    splits = replace(small, labels=tuple(labels))
    with pytest.raises(TrainingError, match=f"^--teacher packaged: {reason}, but must have the classes of the data"):
        train(TrainConfig(**FAST, teacher="packaged"), splits, tmp_path / "run")


def test_damaged_manifest_of_a_teacher_is_an_error(small, tmp_path):
    for name in ("manifest.json", "model.torchscript.pt", "golden.npz"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(TrainingError, match=r"--teacher .*: 'labels'; name a finished run folder"):
        train(TrainConfig(**FAST, teacher=str(tmp_path)), small, tmp_path / "run")
    (tmp_path / "manifest.json").write_text(json.dumps({"labels": small.labels}))
    with pytest.raises(TrainingError, match=r"--teacher .*: 'files'; name a finished run folder"):
        train(TrainConfig(**FAST, teacher=str(tmp_path)), small, tmp_path / "run")
    (tmp_path / "golden.npz").unlink()
    with pytest.raises(TrainingError, match=r"--teacher .*golden\.npz'; name a finished run folder"):
        train(TrainConfig(**FAST, teacher=str(tmp_path)), small, tmp_path / "run")


def test_cache_needs_the_folder_of_a_run(small, tmp_path):
    config = TrainConfig(**FAST, teacher="packaged", teacher_cache=1)
    with pytest.raises(TrainingError, match=r"--teacher-cache: .* packaged is a published version; name a run folder"):
        train(config, small, tmp_path / "run")

"""Read the network of a finished run or of a published version."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from export.run import Run
from serving.settings import RELEASE
from training import checkpoint
from training.distill.ensemble import Ensemble
from training.networks import build
from training.trained import read

PACKAGED = RELEASE / "mnist" / "1"


@pytest.fixture
def reads(monkeypatch):
    """How often a file of each name was read."""
    found, read_bytes = Counter(), Path.read_bytes

    def counted(path):
        found[path.name] += 1
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    return found


@pytest.mark.parametrize("load", [read, lambda folder: Ensemble.load([folder]), lambda folder: Run.read(Path(folder))])
def test_weights_are_those_whose_digest_was_taken(load, teacher, reads):
    """In a second read, the file could be another one."""
    load(str(teacher))
    assert reads["model.pt"] == 1
    assert set(reads.values()) == {1}


def test_published_weights_are_those_whose_digest_was_taken(reads):
    read("packaged")
    assert set(reads.values()) == {1}
    assert reads.keys() == {"manifest.json", "model.torchscript.pt", "golden.npz"}


def test_published_version_may_lie_in_a_folder_whose_name_is_not_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(PACKAGED, folder)
    assert read(str(folder)).digest == read("packaged").digest


def test_altered_files_are_rejected(teacher, tmp_path):
    run, published = shutil.copytree(teacher, tmp_path / "run"), shutil.copytree(PACKAGED, tmp_path / "1")
    checkpoint.save(run / "model.pt", {"model": "mlp", "weights": build("mlp").state_dict()})
    with pytest.raises(ValueError, match=r"model\.pt was changed after the training"):
        read(str(run))
    (published / "golden.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"golden\.npz does not match its manifest"):
        read(str(published))

"""Checkpoints: what is saved is loaded, and damage is found."""

from __future__ import annotations

import pytest
import torch

from training import checkpoint
from training.checkpoint import CheckpointError


def test_checkpoint_holds_what_was_saved(tmp_path):
    state = {"tensor": torch.randn(3), "words": ["a", None, 1.5], "nested": {"b": (1, 2)}}
    checkpoint.save(tmp_path / "c.pt", state)
    loaded = checkpoint.load(tmp_path / "c.pt")
    assert torch.equal(loaded.pop("tensor"), state.pop("tensor"))
    assert loaded == state | {"format": checkpoint.FORMAT}
    plain = torch.load(tmp_path / "c.pt", weights_only=True)
    assert plain["words"] == state["words"], "torch.load reads it too"


def test_every_kind_of_damage_is_found(tmp_path):
    """One bit of each byte is flipped, and the file is cut at every fifth byte. Only CheckpointError is raised."""
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"weights": torch.arange(6.0), "step": 1})
    whole = path.read_bytes()
    cuts = [whole[:length] for length in range(0, len(whole), 5)]
    flips = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for damaged in (*cuts, *flips, whole + b"x", b"rubbish"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"c\.pt: damaged or not a checkpoint"):
            checkpoint.load(path)


def test_checkpoint_of_another_version_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    checkpoint.save(tmp_path / "c.pt", {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"c\.pt: has checkpoint format 99, but this version reads format"):
        checkpoint.load(tmp_path / "c.pt")

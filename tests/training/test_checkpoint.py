"""Checkpoints: what is saved is loaded, and damage is found."""

from __future__ import annotations

import errno
import os
import stat

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


def test_device_is_written_to_and_not_replaced(tmp_path):
    """Root, as in a container, could otherwise replace the /dev/null of the whole system."""
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    checkpoint.write_atomically(link, b"plot")
    assert link.is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EPERM])
def test_file_system_that_cannot_sync_is_told_once(tmp_path, monkeypatch, capfd, number):
    """Some network shares and mounts of object stores cannot sync a folder, or anything."""

    def fsync(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    monkeypatch.setattr(checkpoint, "_told", set())
    for content in (b"old", b"new"):
        checkpoint.write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert capfd.readouterr().err.count(f"WARNING: {tmp_path} is on a file system that cannot sync") == 1


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_of_a_file_follows_the_umask_and_is_never_changed(tmp_path, monkeypatch, umask):
    monkeypatch.setattr(checkpoint.os, "chmod", None)
    before = os.umask(umask)
    try:
        checkpoint.write_atomically(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask

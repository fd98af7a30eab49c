"""The settings of a worker, which starts later and in another folder than the command."""

from __future__ import annotations

import os
import subprocess

import pytest

from serving.errors import SettingsError
from serving.server.handover import descriptors, lasting
from serving.settings import Settings


def test_trusted_key_from_a_pipe_is_inherited():
    reading, writing = os.pipe()
    os.write(writing, b"the key")
    os.close(writing)
    settings = lasting(Settings(trust=f"sigstore:me@issuer, /dev/fd/{reading}"))
    os.close(reading)
    [descriptor] = descriptors(settings)
    try:
        read = ["cat", settings.trust.split(",")[1]]
        assert subprocess.run(read, pass_fds=[descriptor], capture_output=True).stdout == b"the key"
    finally:
        os.close(descriptor)


def test_trusted_key_in_a_folder_with_a_comma_is_rejected(tmp_path, monkeypatch):
    folder = tmp_path / "models,v2"
    folder.mkdir()
    (folder / "key.pem").touch()
    monkeypatch.chdir(folder)
    with pytest.raises(SettingsError, match=r"^--trust key\.pem: its path .*/models,v2/key\.pem must have no comma"):
        lasting(Settings(trust="key.pem"))


def test_trusted_file_that_cannot_be_found_is_left_to_the_application():
    name = "long" * 100
    assert lasting(Settings(trust=name)).trust == name

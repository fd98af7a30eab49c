"""Fixtures of the tests of the service."""

from __future__ import annotations

import shutil

import pytest

from serving.settings import RELEASE


@pytest.fixture
def models(tmp_path):
    """A copy of the packaged repository, without the state that ``mnist-serve --rollout`` may have left there."""
    return shutil.copytree(RELEASE, tmp_path / "models", ignore=shutil.ignore_patterns(".rollout*"))

"""The command that describes a published bundle again, and the thresholds of the packaged one."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from export import describe
from serving.models import repository
from serving.settings import RELEASE
from training.data.errors import DataError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("mnist: no source has the data set"), "mnist: no source has the data set"),
        (PermissionError(13, "Permission denied", "/bundle/README.md"), "/bundle/README.md: Permission denied"),
    ],
)
def test_failure_is_one_line(tmp_path, monkeypatch, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(describe, "load_data", fail)
    folder = shutil.copytree(RELEASE / "mnist" / "1", tmp_path / "1")
    failed = CliRunner().invoke(describe.main, [str(folder)])
    assert (failed.exit_code, failed.output) == (1, f"Error: {line}\n")


def test_packaged_bundle_has_both_thresholds():
    manifest = repository.load(RELEASE, "mnist").bundle.manifest
    assert manifest.confidence is not None
    assert manifest.novelty.false_rejections["test"] + manifest.confidence.false_rejections["test"] < 0.02

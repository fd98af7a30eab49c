"""Fixtures of the tests of the export."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from click.testing import CliRunner


def prepare(patch):
    """Leave out what ``mnist-export`` changes in its process for good, and the process that writes the ONNX file."""
    patch.setattr("export.cli.OnnxProcess", nullcontext)
    patch.setattr("export.cli.keep_freed_memory", lambda: None)
    patch.setattr("export.cli.sleep_while_waiting", lambda: None)


def invoke(*arguments):
    """Run ``mnist-export`` in this process, which has imported torch already, and return its outcome."""
    from export.cli import main

    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def command(monkeypatch):
    """A function that runs ``mnist-export`` in this process, and returns its outcome."""
    prepare(monkeypatch)
    return invoke

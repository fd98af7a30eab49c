"""Fixtures of the tests of the export."""

from __future__ import annotations

import contextlib

import pytest
from click.testing import CliRunner


@pytest.fixture
def command(monkeypatch):
    """A function that runs ``mnist-export`` in this process, which has imported torch already, and returns its outcome.

    Left out are the process that would write the ONNX file beside this one, and what the command changes in its process
    for good.
    """
    monkeypatch.setattr("export.cli.OnnxProcess", contextlib.nullcontext)
    monkeypatch.setattr("export.cli.keep_freed_memory", lambda: None)
    monkeypatch.setattr("export.cli.sleep_while_waiting", lambda: None)

    def invoke(*arguments):
        from export.cli import main

        return CliRunner().invoke(main, list(map(str, arguments)))

    return invoke

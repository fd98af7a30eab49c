"""Every input of the corpora is handled without a fault, and so are the inputs that Atheris derives from them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TARGETS
from tests.support import ROOT, missing

INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_a_corpus():
    assert {path.parent.name for path in INPUTS} == TARGETS.keys()


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input_of_the_corpus(path):
    TARGETS[path.parent.name](path.read_bytes())


def test_changed_inputs_of_every_target(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        missing("atheris")
    # The same seed makes the same inputs in the same order. `make fuzz` looks for new ones, and takes more time.
    # All targets share a command, because its start takes longer than the inputs of a target.
    line = [sys.executable, "-m", "tests.fuzz", ",".join(TARGETS), "-seed=1", "-runs=2000", "-max_total_time=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    # The command ends with the first target that fails, so the end of its output is about that target.
    assert done.returncode == 0, done.stderr[-5000:]
    assert {folder.name for folder in (tmp_path / "runs" / "fuzz").iterdir()} == TARGETS.keys()

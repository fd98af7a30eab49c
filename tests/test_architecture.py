"""Who may import whom, and what serving must never need."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.support import ROOT

ALLOWED = {"training": {"training"}, "serving": {"serving"}, "export": {"export", "training", "serving"}}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert set(imported(path)) & ALLOWED.keys() <= ALLOWED[package], path


def test_bundles_are_read_with_msgspec_alone():
    foreign = set(imported(ROOT / "serving" / "models" / "bundle.py")) - set(sys.stdlib_module_names)
    assert foreign == {"msgspec"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("serving.api.app", {"torch", "training", "export", "onnx", "matplotlib"}),
        ("serving.cli", {"torch", "litestar", "onnxruntime", "numpy"}),
        ("training.cli", {"torch", "torchvision", "matplotlib", "numpy"}),
        ("export.cli", {"torch", "onnx", "onnxruntime"}),
    ],
)
def test_import_leaves_out(module, unwanted):
    program = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.split())

"""Which file may import which, what a command must not import, and how long a file may be."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys

import pytest

from serving import pictures
from serving.models import bundle, missing
from tests.support import ROOT
from training import origin, trained
from training.loop import folder

PACKAGES = {"training": {"training"}, "serving": {"serving"}, "export": {"export", "training", "serving"}}

# A network must learn from what the service will give it, so training prepares pictures with the code of the service.
# One file of training does so, and it gets nothing else of the service.
PREPARATION = "training/data/own/prepare.py"
PREPARATION_IMPORTS = ("serving.pictures", "serving.errors")

# The layers of serving from top to bottom. A file may import from its own part and from the layers below.
LAYERS = [
    *({"cli"}, {"options"}, {"server"}, {"api", "grpc", "python", "tune"}, {"open_inference", "batch"}, {"service"}),
    {"inference"},
    {"models", "pictures", "telemetry", "feedback"},
]
# The files of the lowest layer may import each other.
LOWEST = {"settings", "contract", "errors", "file_version", "files", "hosts", "machine", "shares", "tls"}
PARTS = [*(part for layer in LAYERS for part in layer), *LOWEST]
WEB_LIBRARIES = {"litestar", "uvicorn"}
GRPC_LIBRARIES = {"grpc", "grpc_health", "grpc_reflection", "google"}
# Packages of extras that the service does not load unless a setting asks for them.
OPTIONAL = {"cryptography", "model_signing", "opentelemetry", "requests"}
MAX_LINES = 350


def files_of(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


def imported(path):
    """Yield every module that a file imports, also inside functions and under TYPE_CHECKING, with its full name.

    ``from a import b`` yields both ``a`` and ``a.b``, because ``b`` may be a module.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports with their full name"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(path):
    return {name.partition(".")[0] for name in imported(path)}


def part_of(path):
    """Return the part of serving that a file belongs to: its folder, or its own name directly in ``serving/``."""
    parts = path.relative_to(ROOT / "serving").with_suffix("").parts
    return parts[0]


def allowed_parts(part):
    """Return the parts of serving that a file of ``part`` may import."""
    if part in LOWEST:
        return LOWEST
    [level] = [level for level, layer in enumerate(LAYERS) if part in layer]
    return {part, *LOWEST}.union(*LAYERS[level + 1 :])


def test_overview_of_the_picture_code_names_every_file():
    named = re.findall(r"^    (\w+)  ", pictures.__doc__, re.MULTILINE)
    assert {f"{name}.py" for name in named} | {"__init__.py"} == {path.name for path in files_of("serving/pictures")}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_the_packages_it_may(package):
    for path in files_of(package):
        if path == ROOT / PREPARATION:
            used = [name for name in imported(path) if name.startswith("serving")]
            assert used
            assert all(name.startswith(PREPARATION_IMPORTS) for name in used)
            continue
        assert roots(path) & PACKAGES.keys() <= PACKAGES[package], path


def test_file_of_serving_imports_only_from_its_own_part_and_the_layers_below():
    wrong = []
    for path in files_of("serving"):
        part = part_of(path)
        if part == "__init__":
            # What the package itself offers, and loads only when it is used.
            assert all(name.startswith("serving.python") for name in imported(path) if name.startswith("serving."))
            continue
        assert part in PARTS, f"{path}: add it to the layers of this test and of the design"
        names = {name for name in imported(path) if name.startswith("serving.")}
        assert not any(name.startswith("serving.__init__") for name in names)
        used = {name.split(".")[1] for name in names}
        wrong += [f"{path.relative_to(ROOT)} imports serving.{name}" for name in sorted(used - allowed_parts(part))]
    assert wrong == []


def test_no_files_import_each_other():
    """Files in a loop can only be understood together. An import inside a function counts too."""
    files = {}
    for path in (path for package in PACKAGES for path in files_of(package)):
        if path.name != "__init__.py":  # It passes on names, and holds nothing that a file of its package needs.
            files[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    graphlib.TopologicalSorter({name: files.keys() & imported(path) for name, path in files.items()}).prepare()


def test_packages_that_do_not_import_each_other_agree_on_the_names_of_files():
    assert missing.RECORD == origin.RECORD
    assert (origin.MANIFEST, origin.ONNX) == (bundle.MANIFEST, bundle.ONNX)
    assert (trained.TORCHSCRIPT, trained.GOLDEN) == (bundle.TORCHSCRIPT, bundle.GOLDEN)
    assert set(folder.BUNDLE_FILES) == {bundle.MANIFEST, bundle.ONNX, bundle.INT8, bundle.TORCHSCRIPT, bundle.GOLDEN}


def test_layers_forbid_what_they_should():
    """Check the rules of this file on examples."""
    assert "api" not in allowed_parts("inference")
    assert "api" not in allowed_parts("grpc")
    assert "grpc" not in allowed_parts("api")
    assert not {"models", "pictures"} & allowed_parts("telemetry")
    assert not {"models", "telemetry"} & allowed_parts("pictures")
    assert "pictures" not in allowed_parts("models")
    assert allowed_parts("settings") == LOWEST
    assert {"api", "inference", "models", "settings"} <= allowed_parts("server")


def test_nothing_below_api_imports_a_web_library():
    above = {"cli", "server", "api"}
    for path in files_of("serving"):
        if part_of(path) not in above:
            assert not roots(path) & WEB_LIBRARIES, path


def test_only_the_folder_grpc_imports_the_libraries_of_grpc():
    for path in files_of("serving"):
        if part_of(path) != "grpc":
            assert not roots(path) & GRPC_LIBRARIES, path


def test_only_the_protocol_imports_the_internals_of_uvicorn():
    internals = re.compile(r"uvicorn\.(protocols|_\w+)(\.|$)")
    users = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in files_of(package)
        if any(internals.match(name) for name in imported(path))
    }
    assert users == {"serving/server/protocol.py", "serving/server/flow.py"}


def test_only_the_histogram_uses_private_parts_of_prometheus_client():
    users = {
        str(path.relative_to(ROOT))
        for path in files_of("serving")
        if re.search(r"\._(sum|buckets|upper_bounds)\b", path.read_text())
    }
    assert users == {"serving/telemetry/histogram.py"}


def test_only_one_file_imports_opentelemetry():
    users = {str(path.relative_to(ROOT)) for path in files_of("serving") if "opentelemetry" in roots(path)}
    assert users == {"serving/telemetry/otlp.py"}


def test_bundle_is_read_with_msgspec_alone():
    others = roots(ROOT / "serving" / "models" / "bundle.py") - set(sys.stdlib_module_names)
    assert others == {"msgspec", "serving"}


@pytest.mark.parametrize("package", PACKAGES)
def test_file_has_at_most_350_lines(package):
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files_of(package)}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("serving", {"torch", "numpy", "onnxruntime", "PIL", "click"}),
        ("serving.python", {"torch", "training", "export", "litestar", "matplotlib"}),
        ("training", {"torch", "torchvision", "matplotlib", "numpy", "click", "serving"}),
        ("export", {"torch", "onnx", "onnxruntime", "numpy", "training", "serving"}),
        ("serving.api.app", {"torch", "training", "export", "onnx", "matplotlib", *OPTIONAL}),
        ("serving.cli", {"torch", "litestar", "onnxruntime", "numpy", "asyncio"}),
        ("serving.server.supervisor", {"litestar", "uvicorn", "onnxruntime", "numpy", "prometheus_client"}),
        ("serving.pictures.process", {"torch", "litestar", "onnxruntime", "msgspec", "asyncio"}),
        ("training.cli", {"torch", "torchvision", "matplotlib", "numpy", "mlflow", "tensorboard"}),
        ("export.cli", {"torch", "onnx", "onnxruntime", "oras", "requests", "mlflow", "model_signing"}),
    ],
)
def test_import_does_not_load_heavy_packages(module, unwanted):
    program = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.split())

"""The runtimes that read an exported file: how each is installed, and what it computes."""

from __future__ import annotations

import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from serving.models import bundle

PROGRAMS = Path(__file__).parent / "programs"
SECONDS = 300
PYTHON = ".".join(platform.python_version_tuple()[:2])


class RuntimeFailedError(Exception):
    """A runtime cannot be installed, or it does not run the file. The message is one line."""


@dataclass(frozen=True)
class Runtime:
    """A runtime in an environment of its own."""

    name: str
    program: str
    """Its file in ``programs``. It writes the outputs one after the other as float32, and prints the version."""
    requirements: tuple[str, ...]
    """The packages, and options, for pip or npm. Without any, this Python runs the program."""
    options: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".cjs")

    def file(self, name: str) -> str | None:
        """Return which file of a bundle this runtime reads in place of the ONNX file ``name``, if any."""
        if name == bundle.INT8 and self.program in ("run_torch.py", "run_triton.py"):
            return None
        return bundle.TORCHSCRIPT if self.program == "run_torch.py" else name


# The oldest that PyPI has for each Python, with a numpy of its time. Nothing else is needed to run files.
OLDEST = (
    "onnxruntime==1.15.0; python_version < '3.12'",
    "onnxruntime==1.17.0; python_version == '3.12'",
    "numpy==1.26.4; python_version < '3.13'",
    "onnxruntime==1.20.0; python_version == '3.13'",
    "onnxruntime==1.24.4; python_version > '3.13'",
    "numpy; python_version >= '3.13'",
    "--no-deps",
)
CURRENT_OPENCV = Runtime("OpenCV dnn", "run_opencv.py", ("opencv-python-headless==5.0.0.93", "numpy", "--no-deps"))
OLDEST_ONNXRUNTIME = Runtime("onnxruntime", "run_onnxruntime.py", OLDEST, note=f"the oldest for Python {PYTHON}")
WEB = Runtime("onnxruntime-web", "run_web.cjs", ("onnxruntime-web@1.30.0",), note="WebAssembly, here under Node.js")
OPENVINO = Runtime(
    "OpenVINO", "run_openvino.py", ("openvino==2026.4.1",), ("f32",), "with `INFERENCE_PRECISION_HINT` `f32`"
)
TRITON = Runtime(
    "Triton",
    "run_triton.py",
    ("nvidia-pytriton==0.7.0", "onnxruntime"),
    note="serves the repository as it is; a stand-in takes the place of its backend for ONNX",
)
RUNTIMES = (
    OLDEST_ONNXRUNTIME,
    Runtime("onnxruntime", "run_onnxruntime.py", ("onnxruntime==1.18.1", "numpy<2", "--no-deps")),
    Runtime(
        "onnxruntime", "run_onnxruntime.py", ("onnxruntime==1.20.1", "numpy", "--no-deps"), note="of two years back"
    ),
    WEB,
    Runtime("onnx's reference evaluator", "run_reference.py", ()),
    CURRENT_OPENCV,
    Runtime(
        "OpenCV dnn",
        "run_opencv.py",
        ("opencv-python-headless==4.14.0.94", "numpy", "--no-deps"),
        ("alone",),
        "one image at a time; a larger batch ends with an error, or crashes the process (SIGFPE)",
    ),
    replace(OPENVINO, options=(), note="computes in bfloat16 where the CPU can"),
    OPENVINO,
    Runtime("tract", "run_tract.py", ("tract==0.23.9", "numpy", "--no-deps"), note="an engine in Rust"),
    TRITON,
    Runtime("torch", "run_torch.py", ("torch==2.5.1", "numpy<2.3"), note="the TorchScript file; of two years back"),
)


def install(runtime: Runtime, folder: Path) -> Path:
    """Return the program that runs the runtime's programs, and install the runtime below ``folder`` if needed.

    Raises:
        RuntimeFailedError: the packages cannot be installed, or there is no Node.js.
    """
    if not runtime.requirements:
        return Path(sys.executable)
    place = environment(runtime, folder)
    done = place / "requirements.txt"
    text = "\n".join(runtime.requirements)
    if not done.exists() or done.read_text() != text:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if runtime.is_node:
            npm = shutil.which("npm")
            if not npm or not shutil.which("node"):
                raise RuntimeFailedError("there is no Node.js with npm")
            _run([npm, "install", "--no-audit", "--no-fund", "--prefix", place, *runtime.requirements])
        else:
            # The pip of this Python works for the environment too. Nothing has to be compiled.
            pip = [sys.executable, "-m", "pip", "--python", place, "--disable-pip-version-check", "install", "--quiet"]
            _run([sys.executable, "-m", "venv", "--without-pip", place])
            _run([*pip, "--no-compile", *runtime.requirements])
        done.write_text(text)
    return Path(shutil.which("node") or "node") if runtime.is_node else place / "bin" / "python"


def environment(runtime: Runtime, folder: Path) -> Path:
    """Return the folder of a runtime, which is named after its first package."""
    first = runtime.requirements[0].split(";")[0]
    return folder / "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in first)


def run(runtime: Runtime, folder: Path, model: Path, images: Any, classes: int) -> tuple[str, list[Any]]:
    """Install the runtime below ``folder`` if needed. Return its version, and the three outputs for ``images``.

    Raises:
        RuntimeFailedError: it cannot be installed, or it does not run the file.
    """
    program = install(runtime, folder)
    with tempfile.TemporaryDirectory() as temporary:
        pixels, outputs = Path(temporary) / "images", Path(temporary) / "outputs"
        images.tofile(pixels)
        line = [program, PROGRAMS / runtime.program, model.absolute(), pixels, outputs, *runtime.options]
        version = _run(line, environment(runtime, folder) if runtime.is_node else Path(temporary))
        found = np.fromfile(outputs, np.float32)
    count = len(images)
    if len(found) != count * (2 * classes + 1):
        raise RuntimeFailedError(
            f"gives {len(found)} numbers for {count} images: should be {count * (2 * classes + 1)}"
        )
    logits, probabilities, novelty = np.split(found, [count * classes, 2 * count * classes])
    return version, [logits.reshape(count, classes), probabilities.reshape(count, classes), novelty]


def _run(line: list[object], folder: Path | None = None) -> str:
    """Run a command and return the last line of its output."""
    try:
        done = subprocess.run(list(map(str, line)), cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeFailedError(str(error).splitlines()[0]) from error
    if done.returncode < 0:
        raise RuntimeFailedError(f"crashes with {signal.Signals(-done.returncode).name}")
    if done.returncode:
        raise RuntimeFailedError(_reason(done.stderr))
    return (done.stdout.strip().splitlines() or [""])[-1]


def _reason(output: str) -> str:
    """Return the exception at the end of an output, as one line without the folders of this machine."""
    lines = output.strip().splitlines() or ["no output"]
    begins = [i for i, line in enumerate(lines) if re.match(r"[\w.]+: ", line)] or [len(lines) - 1]
    return re.sub(r"(?<![\w/])/(?:[\w.-]+/)+", "", " ".join(line.strip() for line in lines[begins[-1] :]))

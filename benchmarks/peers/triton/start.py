"""Start Triton with its Python backend. PyTriton's wheel contains both, but not the backend for ONNX files."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

packages = Path(sysconfig.get_path("purelib"))
triton = packages / "pytriton" / "tritonserver"
python = triton / "backends" / "python"
version = f"{sys.version_info.major}.{sys.version_info.minor}"

# The Python backend starts this program, which must be built for the version of Python.
shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", python)
environment = os.environ | {
    "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
    "PYTHONPATH": str(packages),
}
arguments = [
    f"--model-repository={Path(__file__).parent / 'models'}",
    f"--backend-directory={python.parent}",
    "--http-address=127.0.0.1",
    f"--http-port={os.environ['PORT']}",
    f"--grpc-port={os.environ['GRPC_PORT']}",
    f"--metrics-port={os.environ['METRICS_PORT']}",
]
os.execve(triton / "bin" / "tritonserver", ["tritonserver", *arguments], environment)

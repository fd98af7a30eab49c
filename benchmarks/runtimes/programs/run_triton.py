"""Serve the model repository of an ONNX file with Triton, as it is, and ask Triton's client: MODEL IMAGES OUTPUTS.

With --broken after them, a broken version is published while Triton serves. Triton is asked after it has rejected it.
The server is that of nvidia-pytriton. It has no backend for ONNX, so triton_backend.py takes its place.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytriton

warnings.simplefilter("ignore")
import tritonclient.http as client

SECONDS = 60

model, images = Path(sys.argv[1]), np.fromfile(sys.argv[2], np.uint8).reshape(-1, 28, 28)
packages = Path(pytriton.__file__).parents[1]
triton = packages / "pytriton" / "tritonserver"
stub = triton / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
# This program runs in a temporary folder.
backends = Path("backends").absolute()
shutil.copytree(triton / "backends" / "python", backends / "python")
shutil.copy(stub / "triton_python_backend_stub", backends / "python")
(backends / "onnxruntime").mkdir()
backend = Path(__file__).with_name("triton_backend.py").read_text()
(backends / "onnxruntime" / "model.py").write_text(f"import sys\nsys.path.insert(0, {str(packages)!r})\n{backend}")

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
line = [triton / "bin" / "tritonserver", f"--model-repository={model.parents[2]}", f"--backend-directory={backends}"]
# As in deploy/kubernetes/overlays/triton.
line += ["--model-control-mode=poll", "--repository-poll-secs=5", "--exit-on-error=false"]
line += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
libraries = f"{packages / 'nvidia_pytriton.libs'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
with Path("log").open("w") as log:
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    server = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
try:
    address = f"127.0.0.1:{port}"
    asked = client.InferInput("images", list(images.shape), "UINT8")
    asked.set_data_from_numpy(images)
    for _ in range(SECONDS * 10):
        try:
            # The state of the whole server would be `not ready` because of one broken version.
            ready = client.InferenceServerClient(address).is_model_ready(model.parents[1].name)
        except OSError:
            ready = False
        if ready or server.poll() is not None:
            break
        time.sleep(0.1)
    if not ready:
        sys.exit("RuntimeError: Triton does not load the repository: " + Path("log").read_text()[-300:])
    if "--broken" in sys.argv:
        shutil.copytree(model.parent, model.parents[1] / "9")
        (model.parents[1] / "9" / model.name).write_text("no model")
        for _ in range(SECONDS * 10):
            if "failed to load 'mnist' version 9" in Path("log").read_text():
                break
            time.sleep(0.1)
        else:
            sys.exit("RuntimeError: Triton does not look for new versions: " + Path("log").read_text()[-300:])
    triton = client.InferenceServerClient(address)
    names = ["logits", "probabilities", "novelty"]
    found = triton.infer(model.parents[1].name, [asked], outputs=[client.InferRequestedOutput(name) for name in names])
    np.concatenate([found.as_numpy(name).ravel() for name in names]).astype(np.float32).tofile(sys.argv[3])
    print(triton.get_server_metadata()["version"])
finally:
    server.kill()
    server.wait()

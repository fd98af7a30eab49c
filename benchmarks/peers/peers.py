"""The servers that are compared: how each is started, and where its response has the probabilities."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A server that is compared with the service, or the service itself."""

    name: str
    command: str
    """Its words are formatted with the names of ``measure.names``: {bin} is the folder of the programs."""
    settings: str
    """What differs from the defaults, for the results."""
    folder: str = ""
    """Its folder beside this file, with its program and its requirements. The service has none."""
    package: str = ""
    """The package whose version stands in the results."""
    kind: str = "JSON"
    """The kind of its requests: JSON or Open Inference JSON."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables, formatted like the command."""
    python: str = ""
    """The Python to make its environment with, if not the one that runs the benchmark."""
    goals: dict[int, float] = field(default_factory=dict)
    """How many times as many requests per second the service shall handle, by the number of connections."""

    @property
    def requirements(self) -> Path:
        return FOLDER / self.folder / "requirements.txt"

    @property
    def version(self) -> str:
        """The pinned version of its package, and an empty string for the service."""
        if not self.package:
            return ""
        return re.search(rf"^{self.package}==(.+)$", self.requirements.read_text(), re.MULTILINE)[1]  # type: ignore[index]

    def probabilities(self, response: Any) -> list[float]:
        """Return the probabilities of the only image from a decoded response."""
        if self.kind == "JSON":
            [prediction] = response["predictions"]
            found: list[float] = prediction["probabilities"]
        else:
            [found] = [output["data"] for output in response["outputs"] if output["name"] == "probabilities"]
        return found


SERVICE = "{bin}/mnist-serve --port {port} --log-level error"
CHECKOUT = {"PYTHONPATH": "{root}"}
UVICORN = "{bin}/uvicorn server:app --port {port} --no-access-log"
OPEN_INFERENCE = "Open Inference JSON"
MODEL = {"MODEL": "{model}"}
PORTS = {"PORT": "{port}", "GRPC_PORT": "{grpc}", "METRICS_PORT": "{metrics}"}

OURS = [
    Peer("mnist-serve, `/predict`", SERVICE, "the defaults", environment=CHECKOUT),
    Peer("mnist-serve, Open Inference", SERVICE, "the defaults", kind=OPEN_INFERENCE, environment=CHECKOUT),
]

PEERS = [
    Peer(
        "FastAPI + onnxruntime",
        UVICORN,
        "an `async` handler, which its documentation advises for a handler that waits for nothing; uvicorn with uvloop "
        "and httptools and without an access log",
        "fastapi_onnxruntime",
        "fastapi",
        environment=MODEL,
        goals={1: 1.6, 16: 2.5},
    ),
    Peer(
        "FastAPI + onnxruntime, on threads",
        UVICORN.replace("server:app", "server:threaded"),
        "a plain handler, which FastAPI runs on threads; otherwise like FastAPI + onnxruntime",
        "fastapi_onnxruntime",
        "fastapi",
        environment=MODEL,
        goals={1: 1.6, 16: 2.5},
    ),
    Peer(
        "FastAPI + torch",
        UVICORN,
        "the TorchScript file instead of the ONNX file; otherwise like FastAPI + onnxruntime",
        "fastapi_torch",
        "fastapi",
        environment={"TORCHSCRIPT": "{torchscript}"},
    ),
    Peer(
        "LitServe",
        "{bin}/python server.py",
        "one API server and one worker; `fast_queue`, which its documentation advises above 100 requests/s",
        "litserve",
        "litserve",
        environment=MODEL | PORTS,
        goals={16: 8},
    ),
    Peer(
        "BentoML",
        "{bin}/bentoml serve server:Digits --port {port}",
        "one worker; no access log",
        "bentoml",
        "bentoml",
        environment=MODEL | {"BENTOML_DO_NOT_TRACK": "True"},
        goals={16: 12},
    ),
    Peer(
        "MLServer",
        "{bin}/mlserver start .",
        "inference in the process of the server (`parallel_workers` 0), because there is one core",
        "mlserver",
        "mlserver",
        OPEN_INFERENCE,
        {
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{grpc}",
            "MLSERVER_METRICS_PORT": "{metrics}",
            "MLSERVER_MODEL_URI": "{model}",
        },
        goals={16: 5},
    ),
    Peer(
        "Ray Serve",
        "{bin}/python server.py",
        "one replica; `RAY_SERVE_ENABLE_HA_PROXY` and `RAY_SERVE_THROUGHPUT_OPTIMIZED`, the high throughput mode of "
        "its documentation",
        "ray_serve",
        "ray",
        environment=MODEL
        | PORTS
        | {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_TMPDIR": "{temporary}",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    ),
    Peer(
        "Triton, Python backend",
        "{bin}/python start.py",
        "the server of PyTriton's wheel, which lacks the backend for ONNX files; `dynamic_batching`",
        "triton",
        "nvidia-pytriton",
        OPEN_INFERENCE,
        MODEL | PORTS,
        # The server loads the Python library of Debian.
        "/usr/bin/python3.11",
    ),
    Peer(
        "Triton, PyTriton",
        "{bin}/python pytriton_server.py",
        "batches of up to 16 requests",
        "triton",
        "nvidia-pytriton",
        OPEN_INFERENCE,
        MODEL | PORTS,
        "/usr/bin/python3.11",
    ),
]

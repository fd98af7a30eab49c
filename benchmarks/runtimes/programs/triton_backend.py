"""Takes the place of Triton's backend for ONNX, which no package of PyPI has: Triton itself does everything else."""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments):
        config = json.loads(arguments["model_config"])
        self.outputs = [output["name"] for output in config["output"]]
        version = Path(arguments["model_repository"]) / arguments["model_version"]
        self.session = onnxruntime.InferenceSession(version / config["default_model_filename"])

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        images = triton.get_input_tensor_by_name(request, "images").as_numpy()
        found = self.session.run(self.outputs, {"images": images})
        return triton.InferenceResponse([triton.Tensor(*each) for each in zip(self.outputs, found, strict=True)])

"""A model for MLServer, which has no runtime for ONNX files of its own."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    """Predicts the digits of images of 28x28 pixels, from 0 to 255."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0])
        names = ["logits", "probabilities", "novelty"]
        outputs = self.session.run(names, {"images": images})
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, output) for name, output in zip(names, outputs, strict=True)],
        )

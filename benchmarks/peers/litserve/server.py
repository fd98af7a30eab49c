"""LitServe with an API server and a worker."""

import os

import litserve
import numpy as np
import onnxruntime


class DigitAPI(litserve.LitAPI):
    """Predicts the digits of images of 28x28 pixels, from 0 to 255."""

    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    def decode_request(self, request):
        return np.array(request["images"], dtype=np.uint8)

    def predict(self, images):
        return self.session.run(["probabilities"], {"images": images})[0]

    def encode_response(self, probabilities):
        return {
            "predictions": [
                {"digit": int(row.argmax()), "confidence": float(row.max()), "probabilities": row.tolist()}
                for row in probabilities
            ]
        }


if __name__ == "__main__":
    server = litserve.LitServer(DigitAPI(), accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="error")

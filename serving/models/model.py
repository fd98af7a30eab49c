"""One version of a model, loaded and verified on this CPU."""

from __future__ import annotations

import string
import threading
from pathlib import Path

from serving.contract import Images, ModelOutput, Reasons, RejectionReason
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import Bundle
from serving.models.classifier import INPUTS, Classifier, outputs
from serving.models.memory_limit import memory_limit
from serving.models.reference import Reference
from serving.models.trust import Trust

# The longest time, in seconds, for which one batch may block the event loop.
BATCH_SECONDS = 0.0005
# A slow model gets at least this batch size. The time per image hardly falls beyond it.
MIN_BATCH_SIZE = 8
# Bytes that loading a bundle may take, and how often it may take the size of its ONNX file in addition. The packaged
# model takes 5 MB.
LOAD_BYTES, LOAD_FACTOR = 160_000_000, 4


class Model:
    """A verified version of a model. A request uses it inside ``with model:``."""

    bundle: Bundle
    classifier: Classifier
    name: str
    """The name in the repository."""
    version: str
    """The version number, as text because the API gives it as text."""
    labels: tuple[str, ...]
    """The names of the classes."""
    digits: tuple[int, ...]
    """The digit of each class; empty unless every class is a digit."""
    reads_numbers: bool
    """Whether the classes are the ten digits in their order, so that the model can read whole numbers."""
    allows_several: bool
    """Whether a picture in several pieces is accepted, because a symbol of this model consists of several."""
    precision: str
    """The arithmetic of the served file: ``float32`` or ``int8``."""
    reference: Reference | None
    """How the predictions for the validation set are distributed; None if the bundle does not say it."""
    batch_size: int
    """Images in one batch. The event loop serves its sockets between two batches."""

    def __init__(self, verified: Bundle, classifier: Classifier, batch_size: int) -> None:
        manifest = verified.manifest
        self.bundle = verified
        self.classifier = classifier
        self.name = manifest.name
        self.version = str(manifest.version)
        self.labels = manifest.labels
        self.digits = tuple(map(int, self.labels)) if set(self.labels) <= set(string.digits) else ()
        self.reads_numbers = self.digits == tuple(range(10))
        self.allows_several = manifest.several == "allowed"
        self.precision = "int8" if manifest.serve == bundle.INT8 else "float32"
        self.reference = manifest.reference
        self.batch_size = batch_size
        self._least_confidence = manifest.confidence.threshold if manifest.confidence else 0.0
        self._requests = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)

    def judge(self, images: Images, output: ModelOutput, reasons: Reasons) -> list[RejectionReason | None]:
        """Return for each image why it is rejected, or None if it is accepted.

        Args:
            images: uint8 ``[N, 28, 28]``.
            output: the model output for these images.
            reasons: the reasons that decoding has already found.
        """
        highest, lowest = self.bundle.manifest.novelty.threshold, self._least_confidence
        # Comparing bytes is several times as fast as NumPy's any() on a single image.
        pixels = images.tobytes()
        size = len(pixels) // len(images)
        blank = bytes(size)
        confidences = output.probabilities.max(axis=1).tolist()
        judged: list[RejectionReason | None] = []
        for i, (novelty, confidence) in enumerate(zip(output.novelty.tolist(), confidences, strict=True)):
            if pixels.startswith(blank, i * size):
                judged.append("empty")
            elif found := self._reason(reasons.get(i)):
                judged.append(found)
            elif novelty > highest:
                judged.append("no digit")
            elif confidence < lowest:
                judged.append("unsure")
            else:
                judged.append(None)
        return judged

    def _reason(self, found: RejectionReason | None) -> RejectionReason | None:
        """Return the reason that decoding has found, unless it is none for this model."""
        return None if found == "several" and self.allows_several else found

    def digit(self, best: int) -> int | None:
        """Return the digit that a class stands for, or None if the classes are not digits."""
        return self.digits[best] if self.digits else None

    def __enter__(self) -> None:
        with self._lock:
            self._requests += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._requests -= 1
            if not self._requests:
                self._idle.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until no request uses the model. Return False if one still does after ``seconds``."""
        with self._idle:
            return self._idle.wait_for(lambda: self._requests == 0, seconds)


def load_folder(folder: Path, trust: Trust | None = None) -> Model:
    """Load the bundle in ``folder`` and verify it on this CPU.

    Args:
        trust: who must have signed it; None accepts a bundle that nobody signed.

    Raises:
        BundleError: the bundle is incomplete or altered, nobody trusted signed it, or its outputs differ from the
            certified ones.
    """
    try:
        return _load(folder, trust)
    except BundleError:
        raise
    except Exception as error:
        # A bundle can be malformed in more ways than this code can list: in its zip file, its arrays or its graph. So
        # any exception rejects this bundle, and the service goes on.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BundleError(f"{folder} cannot be loaded: {reason}") from error


def _load(folder: Path, trust: Trust | None) -> Model:
    found = bundle.read(folder)
    if trust and trust.check(folder).get(bundle.MANIFEST) != found.digest:
        raise BundleError(f"{folder / bundle.MANIFEST} was altered while it was loaded, or its signature leaves it out")
    file = found.manifest.serve
    with memory_limit(LOAD_BYTES + LOAD_FACTOR * found.manifest.files[file].bytes):
        classifier = Classifier(folder / file, found.content(file))
        expected = (INPUTS, outputs(len(found.manifest.labels)))
        for actual in ((classifier.inputs, classifier.outputs), (found.manifest.inputs, found.manifest.outputs)):
            if actual != expected:
                raise BundleError(f"{folder} has the inputs and outputs {actual}, but this service needs {expected}")
        classifier.verify(folder / bundle.GOLDEN, found.content(bundle.GOLDEN), found.tolerance(file))
        seconds = classifier.seconds_per_image()
    return Model(found, classifier, max(MIN_BATCH_SIZE, int(BATCH_SECONDS / seconds)))

"""A loaded model that predicts."""

from __future__ import annotations

from itertools import islice
from typing import Any

from serving.batch.inputs import CHUNK
from serving.batch.numbers import read_page
from serving.errors import InputError
from serving.inference.recognition import recognise
from serving.models.bundle import Manifest
from serving.models.model import Model
from serving.models.results import accuracy_text, stated_accuracy
from serving.python import html
from serving.python.inputs import Pictures, digits_in, pages_in
from serving.python.predictions import Numbers, Prediction, Predictions


class LoadedModel:
    """A published model, verified on this CPU. :func:`serving.load` returns it. Threads may share it."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self._model.labels

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model."""
        return self._model.bundle.manifest

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the test set of the training, from 0 to 1; None if the manifest does not state it."""
        accuracy: float | None = self._test.get("accuracy")
        return accuracy

    @property
    def _test(self) -> dict[str, Any]:
        test: dict[str, Any] = self.manifest.result.get("test", {})
        return test

    def predict(self, pictures: Pictures) -> Predictions:
        """Return a prediction for each picture, in their order.

        Args:
            pictures: one picture or several. A picture is a path, the bytes of a picture file, a file that is open
                for reading bytes, a PIL image or an array. A path may also be a folder, a pattern such as
                ``scans/*.png`` or a list of names (``LIST.txt``); then it stands for all of its pictures. An array of
                the shape ``[28, 28]`` or ``[N, 28, 28]`` holds images in MNIST's form (bright ink on black), which are
                used as they are. Any other array ``[H, W]``, ``[H, W, 3]`` or ``[N, H, W, 3]`` holds pictures. The
                values are whole numbers in 0..255, or floats in 0..1.

        Raises:
            InputError: a picture cannot be read. The message names it.
        """
        found: list[Prediction] = []
        named = digits_in(pictures, self.manifest.prepare)
        while chunk := list(islice(named, CHUNK)):
            names, digits = zip(*chunk, strict=True)
            for name, each in zip(names, recognise(self._model, digits), strict=True):
                found.append(
                    Prediction(
                        name=name,
                        label=self.labels[each.best],
                        digit=self._model.digit(each.best),
                        confidence=each.probabilities[each.best],
                        reason=each.reason,
                        probabilities=dict(zip(self.labels, each.probabilities, strict=True)),
                        image=each.image,
                    )
                )
        return Predictions(found, len(self.labels))

    def read_numbers(self, pictures: Pictures) -> list[Numbers]:
        """Return the numbers in each picture, as ``mnist-predict --number`` reads them.

        Args:
            pictures: as for :meth:`predict`.

        Raises:
            InputError: a picture cannot be read, or the classes of the model are not the ten digits.
        """
        if not self._model.reads_numbers:
            raise InputError(f"read_numbers: the classes of {self.name} are not the ten digits; use predict instead")
        return [Numbers.of(name, read_page(self._model, page)) for name, page in pages_in(pictures)]

    def _facts(self) -> dict[str, str]:
        count = len(self.labels)
        shown = ", ".join(self.labels[:10]) + (f" and {count - 10} more" if count > 10 else "")
        return {
            "model": f"{self.name}, version {self.version}",
            "classes": f"{count}: {shown}",
            "accuracy": stated_accuracy(self._test),
            "network": f"{self.manifest.parameters:,} parameters, {self._model.precision}",
            "pictures": self.manifest.prepare,
            "verified": "on this CPU",
        }

    def __repr__(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {accuracy_text(self._test)}"
        return f"<LoadedModel {self.name} version {self.version}: {len(self.labels)} classes{accuracy}>"

    def _repr_html_(self) -> str:
        return html.facts(self._facts())

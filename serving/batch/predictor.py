"""Recognise a chunk of pictures: read -> decode -> infer -> encode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serving.batch.decoding import decoded
from serving.batch.inputs import Input, shown
from serving.batch.job import Job
from serving.batch.rows import Row, Rows
from serving.inference.recognition import recognise
from serving.models.repository import load
from serving.pictures.mnist_form import Digit
from serving.pictures.prepare import prepare


class Predictor:
    """Recognises pictures with one model, in this process.

    Raises:
        BundleError: the model cannot be loaded or verified.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model = load(job.repository, job.model, job.version)
        self._name = f"{self._model.name}/{self._model.version}"

    def __call__(self, chunk: Sequence[Input]) -> Rows:
        """Return the encoded rows of the inputs, in their order."""
        rows = self.rows(chunk)
        errors = [row for row in rows if row.error is not None]
        first_error = f"{errors[0].file}: {errors[0].error}" if errors else ""
        accepted = sum(row.accepted for row in rows)
        return Rows([self._job.form.encode(row) for row in rows], len(errors), first_error, accepted)

    def rows(self, chunk: Sequence[Input]) -> list[Row]:
        """Return a row for each input, in their order: a prediction, or why there is none."""
        found = [self.decode(each) for each in chunk]
        predictions = self.infer([digit for digit in found if isinstance(digit, Digit)])
        rows = []
        for each, digit in zip(chunk, found, strict=True):
            row = Row("", error=digit) if isinstance(digit, str) else next(predictions)
            row.file, row.model = shown(each.name), self._name
            rows.append(row)
        return rows

    def decode(self, each: Input) -> Digit | str:
        """Return the digit in a picture, or the reason why there is none."""
        return decoded(each, self._job.stdin, self._job.folder, self._prepare)

    def _prepare(self, content: bytes, max_pixels: int) -> Digit:
        return prepare(content, self._model.bundle.manifest.prepare, max_pixels)

    def infer(self, digits: Sequence[Digit]) -> Iterator[Row]:
        """Yield a row without a name for each digit."""
        for found in recognise(self._model, digits):
            yield Row(
                file="",
                digit=self._model.digit(found.best),
                label=self._model.labels[found.best],
                confidence=found.probabilities[found.best],
                probabilities=found.probabilities,
                accepted=found.reason is None,
                reason=found.reason,
            )

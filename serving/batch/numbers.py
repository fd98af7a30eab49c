"""Read all numbers in each picture, one after the other, and print them: mnist-predict --number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from serving.batch.decoding import decoded
from serving.batch.inputs import Input, Inputs, shown
from serving.batch.rows import percent
from serving.errors import BundleError, printable
from serving.inference.numbers import NumberPrediction, NumberReading
from serving.models.model import Model
from serving.models.repository import load
from serving.pictures.number_form import NumberPage, to_number_page

# The column with the numbers is at least this wide. A longer number moves the rest of its row.
NUMBER_WIDTH = 12


class Numbers:
    """Reads the numbers in pictures with one model.

    Raises:
        BundleError: the model cannot be loaded or verified, or it knows other classes than digits.
    """

    def __init__(self, repository: Path, model: str, inputs: Inputs) -> None:
        self.model: Model = load(repository, model)
        if not self.model.reads_numbers:
            raise BundleError(f"--number: the classes of {model} are not the ten digits; leave --number out")
        self._inputs = inputs

    def __iter__(self) -> Iterator[tuple[Input, NumberPrediction | str]]:
        """Yield each input with its numbers, or with the reason why it cannot be read."""
        for each in self._inputs:
            page = decoded(each, self._inputs.picture, "", to_number_page)
            yield each, page if isinstance(page, str) else read_page(self.model, page)


def read_page(model: Model, page: NumberPage) -> NumberPrediction:
    """Return the numbers in a picture."""
    reading = NumberReading(model, [page])
    output = model.classifier.classify(reading.images) if len(reading.images) else None
    [prediction] = reading.predictions(output)
    return prediction


def print_json(numbers: Numbers, write: Callable[[bytes], None]) -> Iterator[tuple[str, str]]:
    """Write JSON as /predict?mode=number does, with the name of each file. Yield each unreadable file and its error."""
    model = {"name": numbers.model.name, "version": numbers.model.version}
    write(b'{"model": %b, "predictions": [\n' % msgspec.json.encode(model))
    between = b""
    for each, result in numbers:
        row = {"error": result} if isinstance(result, str) else msgspec.to_builtins(result)
        write(between + msgspec.json.encode({"file": shown(each.name)} | row))
        between = b",\n"
        if isinstance(result, str):
            yield shown(each.name), result
    write(b"\n]}\n")


def print_table(numbers: Numbers, width: int, write: Callable[[bytes], None]) -> Iterator[tuple[str, str]]:
    """Write a row for each line of digits. Yield each unreadable file and its error."""
    write(f"{'file':{width}}  {'number':{NUMBER_WIDTH}}  confidence  accepted\n".encode())
    for each, result in numbers:
        rows: Sequence[tuple[str, str, str]]
        if isinstance(result, str):
            rows = [("-", "-", result)]
        else:
            lines = [(line.text, percent(line.confidence), line.reason or "yes") for line in result.lines]
            rows = lines or [("-", "-", result.reason or "yes")]
        name = f"{printable(shown(each.name)):{width}}"
        for text, confidence, verdict in rows:
            write(f"{name}  {text:{NUMBER_WIDTH}}  {confidence:>10}  {printable(verdict)}\n".encode())
        if isinstance(result, str):
            yield shown(each.name), result

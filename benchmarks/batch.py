"""Measure mnist-predict on a folder of pictures, beside what its stages cost in one process.

    python -m benchmarks.batch [--pictures 40000] [--save benchmarks/results/batch.md]

The command is timed as a whole process, from its start to its end: it finds the pictures, starts its workers, and
writes results.csv. The stages are timed in this process, each alone, as the least CPU time of several rounds.

"One process" is the CPU time of all stages for all pictures in this process. "Used" is this time divided by the time of
the command and by the cores; other work on the machine makes it smaller. "Of CPU time" is "One process" divided by the
CPU time of the command: the rest is the start of the processes and what they say to each other. Both are medians of
alternating rounds.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.footprint import seconds_of_ended_commands
from benchmarks.harness import BIN, encode_picture, golden_digits
from benchmarks.report import conditions, save_option, tell
from serving import files
from serving.batch.inputs import CHUNK, Input, Inputs
from serving.batch.job import Job
from serving.batch.predictor import Predictor
from serving.batch.rows import Csv
from serving.batch.run import default_workers
from serving.pictures.mnist_form import Digit
from serving.pictures.signatures import MAX_FILE_BYTES
from serving.settings import RELEASE

SAMPLE = 40 * CHUNK
ROUNDS = 5
# Pictures in one folder below the folder that the command gets.
PER_FOLDER = 1000


def write_pictures(folder: Path, number: int) -> None:
    """Write ``number`` PNG files of 28x28 pixels with the digits of golden.npz."""
    digits = [encode_picture(image) for image in golden_digits()[0]]
    for i in range(number):
        part = folder / f"{i // PER_FOLDER:04d}"
        part.mkdir(exist_ok=True)
        (part / f"{i:07d}.png").write_bytes(digits[i % len(digits)])


def stages(names: list[Path]) -> dict[str, float]:
    """Return the microseconds per picture of each stage."""
    predictor = Predictor(Job(RELEASE, "mnist", 1, Csv(), "/"))
    chunks = [[Input(str(name)) for name in names[i : i + CHUNK]] for i in range(0, len(names), CHUNK)]
    digits = [[found for each in chunk if isinstance(found := predictor.decode(each), Digit)] for chunk in chunks]
    rows = [predictor.rows(chunk) for chunk in chunks]
    read = _microseconds(lambda: [files.read(name, MAX_FILE_BYTES) for name in names], len(names))
    decode = _microseconds(lambda: [predictor.decode(each) for chunk in chunks for each in chunk], len(names))
    infer = _microseconds(lambda: [list(predictor.infer(chunk)) for chunk in digits], len(names))
    encode = _microseconds(lambda: [Csv().encode(row) for chunk in rows for row in chunk], len(names))
    return {"read": read, "decode": decode - read, "infer": infer, "encode": encode}


def measure(folder: Path, output: Path) -> tuple[float, float, float]:
    """Return the CPU seconds of all stages in this process, the seconds of the command, and its CPU seconds."""
    predictor = Predictor(Job(RELEASE, "mnist", 1, Csv(), "/"))
    start = time.process_time()
    for chunk in Inputs([str(folder)], io.BytesIO()).chunks(0):
        predictor(chunk)
    needed = time.process_time() - start
    before, start = seconds_of_ended_commands(), time.perf_counter()
    subprocess.run([BIN / "mnist-predict", folder, "--output", output], check=True, capture_output=True)
    return needed, time.perf_counter() - start, seconds_of_ended_commands() - before


def _microseconds(work: Callable[[], object], pictures: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best / pictures * 1e6


@click.command()
@click.option("--pictures", default=40_000, show_default=True, type=click.IntRange(min=1), help="Pictures.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Measurements of each figure.")
@save_option
def main(pictures: int, rounds: int, save: Path | None) -> None:
    """Measure mnist-predict on a folder and print a table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        write_pictures(folder, pictures)
        cost = stages(sorted(folder.rglob("*.png"))[:SAMPLE])
        measured = [measure(folder, Path(temporary) / f"{i}.csv") for i in range(rounds)]
    cores = default_workers()
    needed, seconds, spent = (float(np.median(column)) for column in zip(*measured, strict=True))
    used, share = (
        float(np.median([one / other for one, other in pairs]))
        for pairs in ([(a, b * cores) for a, b, _ in measured], [(a, c) for a, _, c in measured])
    )
    tell(
        [
            conditions("onnxruntime", "numpy", "pillow"),
            "",
            f"| {' | '.join(f'{name} µs' for name in cost)} | pictures | cores | one process CPU s | command s "
            "| command CPU s | pictures/s | used | of CPU time |",
            f"|{'---|' * (len(cost) + 8)}",
            f"| {' | '.join(f'{value:.0f}' for value in cost.values())} | {pictures:,} | {cores} | {needed:.1f} "
            f"| {seconds:.1f} | {spent:.1f} | {pictures / seconds:,.0f} | {used:.0%} | {share:.0%} |",
        ],
        save,
    )


if __name__ == "__main__":
    main()

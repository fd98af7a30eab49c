"""Measure mnist-predict on a folder of pictures, beside what its stages cost in one process.

    python -m benchmarks.batch [--pictures 40000] [--save benchmarks/results/batch.md]

The command is timed as a whole process, from its start to its end: it finds the pictures, starts its workers, and
writes results.csv. The stages are timed in this process, one after the other, as the least CPU time of several rounds.
"Used" is the time of the stages for all pictures, divided by the time of the command and by the cores. "Of CPU time" is
the same time divided by the CPU time of the command: on a machine with other work, "used" says little.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.harness import BIN, encode_picture, golden_digits
from benchmarks.report import conditions, tell
from serving.batch.inputs import CHUNK, MAX_FILE_BYTES, Input
from serving.batch.job import Job
from serving.batch.predictor import Predictor
from serving.batch.rows import Csv
from serving.batch.run import cores
from serving.models import files
from serving.pictures.mnist_form import Digit
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
    predictor = Predictor(Job(RELEASE, "mnist", None, Csv(), "/"))
    chunks = [[Input(str(name)) for name in names[i : i + CHUNK]] for i in range(0, len(names), CHUNK)]
    digits = [[found for each in chunk if isinstance(found := predictor.decode(each), Digit)] for chunk in chunks]
    rows = [predictor.rows(chunk) for chunk in chunks]
    read = _microseconds(lambda: [files.read(name, MAX_FILE_BYTES) for name in names], len(names))
    decode = _microseconds(lambda: [predictor.decode(each) for chunk in chunks for each in chunk], len(names))
    infer = _microseconds(lambda: [list(predictor.infer(chunk)) for chunk in digits], len(names))
    encode = _microseconds(lambda: [Csv().encode(row) for chunk in rows for row in chunk], len(names))
    return {"read": read, "decode": decode - read, "infer": infer, "encode": encode}


def _microseconds(work: Callable[[], object], pictures: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best / pictures * 1e6


@click.command()
@click.option("--pictures", default=40_000, show_default=True)
@click.option("--save", type=click.Path(path_type=Path), help="Write the table to this file too.")
def main(pictures: int, save: Path | None) -> None:
    """Measure mnist-predict on a folder and print a table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        write_pictures(folder, pictures)
        cost = stages(sorted(folder.rglob("*.png"))[:SAMPLE])
        command = [BIN / "mnist-predict", folder, "--output", Path(temporary) / "results.csv"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = usage.ru_utime + usage.ru_stime
    total = sum(cost.values())
    needed = total * pictures / 1e6
    tell(
        [
            conditions("onnxruntime", "numpy", "pillow"),
            "",
            f"| {' | '.join(f'{name} µs' for name in cost)} | stages µs | pictures | cores | s | CPU s "
            "| pictures/s | used | of CPU time |",
            f"|{'---|' * (len(cost) + 8)}",
            f"| {' | '.join(f'{value:.0f}' for value in cost.values())} | {total:.0f} | {pictures:,} | {cores()} "
            f"| {seconds:.1f} | {spent:.1f} | {pictures / seconds:,.0f} | {needed / seconds / cores():.0%} "
            f"| {needed / spent:.0%} |",
        ],
        save,
    )


if __name__ == "__main__":
    main()

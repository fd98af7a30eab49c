"""Time a newcomer with a folder of 26 letters: the three commands at the top of docs/own-data.md, as they stand there.

    python -m benchmarks.letters [--draw FOLDER]

The letters are drawn from the fonts that matplotlib brings: 30 pictures of each, dark ink on light paper, in several
sizes, turned a little. With --draw the program only writes them into a folder, to try the commands by hand.
"""

from __future__ import annotations

import os
import re
import shlex
import string
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import click
import httpx
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.footprint import seconds_of_ended_commands
from benchmarks.harness import BIN, ROOT, exit_at_sigterm
from benchmarks.report import conditions, save_option, tell

PICTURES = 30
# Fonts of these names draw letters. The others hold symbols or parts of formulas.
FONTS = ("DejaVu*", "STIXGeneral*", "cmr10", "cmb10", "cmss10", "cmtt10", "cmti10", "cmmi10")


def draw_letters(folder: Path, count: int = PICTURES, letters: str = string.ascii_uppercase) -> None:
    """Draw ``count`` pictures of each letter into a folder of its own."""
    random = np.random.default_rng(0)
    fonts = _fonts()
    for letter in letters:
        (folder / letter).mkdir(parents=True)
        for i, font in enumerate(random.permutation(np.resize(np.arange(len(fonts)), count))):
            side = int(random.integers(120, 240))
            page = Image.new("L", (side, side), int(random.integers(215, 256)))
            size = ImageFont.truetype(fonts[font], int(side * random.uniform(0.4, 0.6)))
            ink, thickening = int(random.integers(0, 80)), int(random.integers(0, 4))
            draw = ImageDraw.Draw(page)
            draw.text((side / 2, side / 2), letter, ink, size, anchor="mm", stroke_width=thickening)
            page = page.rotate(random.normal(0, 6), Image.Resampling.BICUBIC, fillcolor=page.getpixel((0, 0)))
            page.save(folder / letter / f"{i:02}.{'jpg' if i % 2 else 'png'}")


@cache
def _fonts() -> list[Path]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = {path for name in FONTS for path in folder.glob(f"{name}.ttf")}
    return sorted(path for path in found if "Display" not in path.name)


def documented_commands() -> list[str]:
    """Return the three commands at the top of docs/own-data.md."""
    block = re.search(r"```sh\n(.*?)```", (ROOT / "docs" / "own-data.md").read_text(), re.DOTALL)
    assert block
    return block[1].splitlines()


def words_of(command: str, *more: str) -> list[str]:
    """Return a command line as a list that runs this environment's program."""
    program, *words = shlex.split(command)
    return [str(BIN / program), *words, *more]


@contextmanager
def served(command: str, folder: Path) -> Iterator[str]:
    """Run mnist-serve on a free port, and yield its address."""
    with subprocess.Popen(words_of(command, "--port", "0"), cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield next(line.split()[0] for line in process.stdout if line.startswith("http://"))
        finally:
            process.terminate()


def predicted(url: str, picture: Path) -> str:
    """Return the label that the service gives to a picture."""
    with httpx.Client(trust_env=False) as client:
        response = client.post(f"{url}/predict", content=picture.read_bytes())
    label: str = response.raise_for_status().json()["predictions"][0]["label"]
    return label


def measure(folder: Path) -> Iterator[str]:
    """Yield the lines of the table."""
    train, export, serve = documented_commands()
    yield "| command | seconds | processor seconds |"
    yield "|---|---:|---:|"
    result = ""
    for command in (train, export):
        before, started = seconds_of_ended_commands(), time.monotonic()
        done = subprocess.run(words_of(command), cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(done.stderr)
        seconds = time.monotonic() - started
        yield f"| `{command}` | {seconds:.0f} | {seconds_of_ended_commands() - before:.0f} |"
        result = result or next(line for line in done.stdout.splitlines() if line.startswith("Test set"))
    before, started = seconds_of_ended_commands(), time.monotonic()
    with served(serve, folder) as url:
        label = predicted(url, folder / "letters" / "Q" / "00.png")
        seconds = time.monotonic() - started
    cpu = seconds_of_ended_commands() - before
    yield f"| `{serve}`, until the first response | {seconds:.1f} | {cpu:.1f} |"
    yield f"\n{result}. The first response was: {label}, for a Q."


@click.command()
@click.option("--draw", type=click.Path(path_type=Path), help="Only draw the letters into this folder.")
@save_option
def main(draw: Path | None, save: Path | None) -> None:
    """Time the three commands at the top of docs/own-data.md with a folder of 26 letters."""
    if draw and draw.exists() and not (draw.is_dir() and not any(draw.iterdir())):
        raise click.UsageError(f"--draw {draw}: is there already; remove it, or name another folder")
    if draw:
        draw_letters(draw)
        click.echo(f"{draw}: 26 folders with {PICTURES} pictures each")
        return
    exit_at_sigterm()
    os.environ.pop("MNIST_DATA", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_letters(folder / "letters")
        tell([conditions("torch", "onnxruntime"), "", *measure(folder)], save)


if __name__ == "__main__":
    main()

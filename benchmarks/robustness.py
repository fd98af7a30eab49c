"""Measure the packaged model on digits that are not MNIST's, and on pictures that are not digits.

    python -m benchmarks.robustness --fonts FOLDER --fashion FOLDER [--images 10000] [--ablate 2000] [--save FILE]
    python -m benchmarks.robustness --table pages --images 500

Each picture takes the path of a picture sent to /predict: it is decoded, brought to 28x28 and classified. Rows named
"pixels" and the rows of MNIST-C give 28x28 arrays to the classifier directly, without the picture code. Only the last
column of MNIST-C uses the picture code. The results are those of test digits. With --digits validation, the same
tables are made from training digits: rules and constants are chosen on them.

--fonts: a folder with handwriting fonts (.ttf, .otf or .woff) that the model was not trained on. The results were
measured with the npm packages @fontsource/architects-daughter, /caveat, /gloria-hallelujah, /handlee, /indie-flower,
/kalam, /patrick-hand and /shadows-into-light. Fonts listed in training/augment/fonts.txt are rejected.
--fashion: a folder with Fashion-MNIST's t10k-images-idx3-ubyte.gz, for instance from Debian's package
dataset-fashion-mnist. Rows that need an option that is not given are left out.
--ablate N: also print what each step of serving/pictures gains, measured on N of the images.
"""

from __future__ import annotations

import gzip
import io
import itertools
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.corruptions import CORRUPTIONS, corrupt
from benchmarks.digits import choose_digits, load_digits, spread
from benchmarks.drawings import (
    DRAWINGS,
    LETTERS_LIKE_DIGITS,
    Array,
    Pictures,
    blank_pages,
    draw,
    encode,
    render,
    render_digits,
    scans,
)
from benchmarks.pages import GOALS, PAGES, PHONE_48
from benchmarks.polylines import draw_polylines
from benchmarks.report import conditions, save_option
from benchmarks.scenes import SCENES
from serving.contract import ModelOutput, Reasons
from serving.inference.readings import choose
from serving.models import repository
from serving.pictures import close_up, ink, mnist_form, pieces
from serving.pictures.close_up import Place
from serving.pictures.mnist_form import to_mnist_form
from serving.settings import RELEASE
from training.augment.fonts import find_fonts

MAX_PIXELS = 25_000_000
# Drawing a photo of 48 megapixels takes a second.
LARGE_PHOTOS = 20
TABLES = ("drawings", "pages", "scenes", "mnist-c", "other digits", "not digits")
TRAINED_FONTS = Path(__file__).parent.parent / "training" / "augment" / "fonts.txt"

# Each step of serving/pictures, and how it is switched off: module, name in the module, replacement.
STEPS: dict[str, tuple[Any, str, Any]] = {
    "pass images in MNIST's form unchanged": (mnist_form, "is_mnist_form", lambda image: False),
    "enlarge pictures of few pixels": (close_up, "ENLARGE_BELOW", 0),
    "measure the ink again in a close-up": (close_up, "crop_to_ink", lambda page, ink: (page, Place())),
    "measure uneven paper in the neighbourhood": (ink, "is_uneven", lambda ink, border, most: False),
    "tell noise from ink": (ink, "DEVIATION", 0),
    "remove specks": (pieces, "SPECK", 0),
    "widen thin strokes": (mnist_form, "widen_strokes", lambda ink: ink),
    "remove what surrounds the digit": (mnist_form, "other_pages", lambda page, overview, close_up, pieces: ()),
}
ABLATED = (
    *("as PNG", "28x28, dark on white, off centre", "420x420", "somewhere on 600x800", "hairline"),
    *("specks of dust", "photo: shadow, grain, JPEG"),
)

Measured = tuple[ModelOutput, list[bool]]
"""The model output, and for each image whether it is accepted as a digit."""


class Reader:
    """The path of a request without HTTP: pictures in, model output and acceptance out."""

    def __init__(self, folder: Path, name: str) -> None:
        self.model = repository.load(folder, name)

    def pictures(self, pictures: Sequence[bytes]) -> Measured:
        read = choose(self.model, [to_mnist_form(picture, MAX_PIXELS) for picture in pictures])
        return self.pixels(np.stack([digit.image for digit in read]), {i: digit.reason for i, digit in enumerate(read)})

    def pixels(self, images: Array, reasons: Reasons | None = None) -> Measured:
        output = self.model.classifier.classify(images)
        return output, [reason is None for reason in self.model.judge(images, output, reasons or {})]


def accuracy(output: ModelOutput, truth: Array) -> float:
    return float((output.probabilities.argmax(axis=1) == truth).mean())


def calibration_error(output: ModelOutput, truth: Array, bins: int = 15) -> float:
    """Return the expected calibration error: mean distance of confidence to accuracy, over bins of equal width."""
    confidence = output.probabilities.max(axis=1)
    gap = confidence - (output.probabilities.argmax(axis=1) == truth)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(index, gap, bins)).sum() / len(truth))


def on_black(pictures: Sequence[bytes]) -> Array:
    """Return the pixels of pictures of 28x28 pixels, inverted where most of them are bright."""
    images = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures])
    is_bright = np.median(images, axis=(1, 2), keepdims=True) > 127
    return np.where(is_bright, 255 - images, images)


def heading(subject: str) -> str:
    return f"\n| {subject} | images | correct | calibration error | accepted |\n|---|---:|---:|---:|---:|"


def row(name: str, measured: Measured, truth: Array) -> str:
    output, accepted = measured
    figures = f"{accuracy(output, truth):.2%} | {calibration_error(output, truth):.2%} | {np.mean(accepted):.1%}"
    return f"| {name} | {len(truth)} | {figures} |"


def drawn_digits(read: Reader, digits: Array, truth: Array) -> Iterator[str]:
    yield heading("MNIST's digits, drawn as pictures")
    yield row("pixels, without the picture code", read.pixels(digits), truth)
    for name in DRAWINGS:
        yield row(name, read.pictures(draw(name, digits)), truth)


def mnist_c(read: Reader, digits: Array, truth: Array) -> Iterator[str]:
    """Yield the table of MNIST-C. The last column is for the same images as PNG, read with the picture code."""
    yield (
        "\n| MNIST-C, recreated: 28x28 pixels given to the network, without the picture code | images | correct "
        "| calibration error | accepted | correct as PNG, with the picture code |\n|---|---:|---:|---:|---:|---:|"
    )
    columns: list[tuple[float, float, float]] = []
    for name in CORRUPTIONS:
        images = corrupt(name, digits, seed=0)
        measured = read.pixels(images)
        output, _ = read.pictures(draw("as PNG", images))
        columns.append((accuracy(measured[0], truth), calibration_error(measured[0], truth), accuracy(output, truth)))
        yield f"{row(name.replace('_', ' '), measured, truth)} {columns[-1][2]:.2%} |"
    correct, error, correct_as_png = np.mean(columns, axis=0)
    yield f"| **mean** | | **{correct:.2%}** | **{error:.2%}** | | **{correct_as_png:.2%}** |"


def pages(read: Reader, digits: Array, truth: Array) -> Iterator[str]:
    """Yield the table of digits on generated pages. The last column is the least share that should be correct."""
    yield (
        "\n| MNIST's digits on pages as people photograph, scan and crop them | images | correct "
        "| calibration error | accepted | goal |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, draw_page in PAGES.items():
        count = LARGE_PHOTOS if name == PHONE_48 else len(digits)
        random = np.random.default_rng(0)
        measured = read.pictures([draw_page(digit, random) for digit in spread(digits, count)])
        yield f"{row(name, measured, spread(truth, count))} {GOALS[name]:.0%} |"


def scenes(read: Reader, digits: Array, truth: Array) -> Iterator[str]:
    yield heading("MNIST's digits in scenes")
    for name, compose in SCENES.items():
        random = np.random.default_rng(0)
        yield row(name, read.pictures([compose(digit, random) for digit in digits]), truth)


def other_digits(read: Reader, fonts: list[Path]) -> Iterator[str]:
    yield heading("digits from other sources, as pictures")
    pictures, labels = scans()
    yield row("scikit-learn's load_digits", read.pictures(pictures), labels)
    pictures, labels = draw_polylines()
    yield row("polylines drawn at 28x28, pixels without the picture code", read.pixels(on_black(pictures)), labels)
    yield row("polylines drawn at 28x28", read.pictures(pictures), labels)
    if fonts:
        pictures, labels = render_digits(fonts)
        yield row(f"{len(fonts)} handwriting fonts", read.pictures(pictures), labels)


def not_digits(read: Reader, fonts: list[Path], fashion: Array | None, digits: Array) -> Iterator[str]:
    """Yield the table of rejections. The AUROC says how well the novelty score separates a set from the test digits."""
    known = read.pixels(digits)[0].novelty

    def line(name: str, measured: Measured) -> str:
        output, accepted = measured
        if known is None or output.novelty is None:
            auroc = ""
        else:
            new = np.repeat([False, True], [len(known), len(output.novelty)])
            auroc = f"{roc_auc_score(new, np.concatenate([known, output.novelty])):.4f}"
        return f"| {name} | {len(accepted)} | {1 - np.mean(accepted):.1%} | {auroc} |"

    if fonts or fashion is not None:
        yield "\n| not digits | images | rejected | AUROC of the novelty score |\n|---|---:|---:|---:|"
    if fashion is not None:
        yield line("Fashion-MNIST, pixels", read.pixels(fashion))
        yield line("Fashion-MNIST, pictures", read.pictures([encode(image) for image in fashion]))
    if fonts:
        pictures, letters = render(fonts, string.ascii_letters)
        yield line("letters of the fonts", read.pictures(pictures))
        unlike = [p for p, letter in zip(pictures, letters, strict=True) if letter not in LETTERS_LIKE_DIGITS]
        yield line(f"letters without {LETTERS_LIKE_DIGITS}", read.pictures(unlike))


def ablation(read: Reader, digits: Array, truth: Array) -> Iterator[str]:
    """Yield a table of accuracy and acceptance, with each step of the picture code switched off in turn."""
    sets: dict[str, Pictures] = {name: (draw(name, digits), truth) for name in ABLATED} | {"load_digits": scans()}
    blank = blank_pages(100)

    def line(name: str) -> str:
        cells = []
        for pictures, labels in sets.values():
            output, accepted = read.pictures(pictures)
            cells.append(f"{accuracy(output, labels):.1%} ({np.mean(accepted):.1%})")
        empty = np.mean([to_mnist_form(page, MAX_PIXELS).reason == "empty" for page in blank])
        return f"| {name} | {' | '.join(cells)} | {empty:.0%} |"

    count = len(digits)
    yield f"\nCorrect (accepted) of {count} digits, with one step of serving/pictures switched off:\n"
    yield f"| step switched off | {' | '.join(sets)} | blank pages rejected as empty |"
    yield f"|---|{'---:|' * (len(sets) + 1)}"
    yield line("none")
    for name, (module, attribute, replacement) in STEPS.items():
        with mock.patch.object(module, attribute, replacement):
            yield line(name)


def unseen_fonts(folder: Path) -> list[Path]:
    """Return the fonts below a folder.

    Raises:
        click.UsageError: there are none, or the packaged model was trained on one of them.
    """
    trained = {package.split("/")[1] for package in TRAINED_FONTS.read_text().split()}
    fonts = find_fonts(folder)
    if not fonts:
        raise click.UsageError(f"--fonts {folder}: must contain fonts; put .ttf, .otf or .woff files there")
    for font in fonts:
        if trained & set(font.parts):
            raise click.UsageError(
                f"--fonts {folder}: must contain no font that the model was trained on; remove {font}"
            )
    return fonts


def fashion_images(folder: Path) -> Array:
    """Return the 10,000 test images of Fashion-MNIST.

    Raises:
        click.UsageError: the folder and its subfolders do not contain them.
    """
    for path in folder.rglob("t10k-images-idx3-ubyte.gz"):
        return np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8).reshape(-1, 28, 28)
    raise click.UsageError(f"--fashion {folder}: must contain t10k-images-idx3-ubyte.gz; put that file there")


@click.command()
@click.option("--repository", "folder", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
@click.option("--model", default="mnist", show_default=True, help="Name of the model.")
@click.option(
    "--images",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Digits in each row, evenly spread over the set.",
)
@click.option("--fonts", type=click.Path(path_type=Path, exists=True), help="Folder with handwriting fonts.")
@click.option("--fashion", type=click.Path(path_type=Path, exists=True), help="Folder with Fashion-MNIST.")
@click.option("--data", "mnist", type=click.Path(path_type=Path), help="Folder with MNIST.")
@choose_digits
@click.option("--ablate", default=0, help="Switch off each step of the picture code in turn, on this many test images.")
@click.option("--table", "chosen", multiple=True, type=click.Choice(TABLES), help="Print only this table; repeatable.")
@save_option
def main(
    folder: Path,
    model: str,
    images: int,
    fonts: Path | None,
    fashion: Path | None,
    mnist: Path | None,
    digits_set: str,
    ablate: int,
    chosen: tuple[str, ...],
    save: Path | None,
) -> None:
    """Measure the model on changed digits and on pictures that are not digits, and print tables."""
    handwriting = unseen_fonts(fonts) if fonts else []
    clothes = spread(fashion_images(fashion), images) if fashion else None
    read = Reader(folder, model)
    digits, truth = (spread(each, images) for each in load_digits(digits_set, mnist))
    model_named = f"model {read.model.name} version {read.model.version}"
    tables = {
        "drawings": drawn_digits(read, digits, truth),
        "pages": pages(read, digits, truth),
        "scenes": scenes(read, digits, truth),
        "mnist-c": mnist_c(read, digits, truth),
        "other digits": other_digits(read, handwriting),
        "not digits": not_digits(read, handwriting, clothes, digits),
    }
    printed = [
        [conditions("onnxruntime", "numpy", "pillow", also=model_named)],
        *(tables[name] for name in chosen or TABLES),
        ablation(read, spread(digits, ablate), spread(truth, ablate)) if ablate else [],
    ]
    lines = []
    for line in itertools.chain.from_iterable(printed):
        click.echo(line)  # at once: some rows take minutes
        lines.append(line)
    if save:
        save.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

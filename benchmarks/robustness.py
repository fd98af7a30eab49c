"""How the packaged model reads what is not MNIST's, how sure it is of it, and what it refuses.

    python -m benchmarks.robustness --fonts FOLDER --fashion FOLDER [--images 10000] [--save FILE]

Everything goes the way of a picture sent to /predict: decoded, brought to 28x28, classified. Only test images
are used; all choices were made on training images. Fonts are .ttf, .otf or .woff files below --fonts, for
instance of the npm packages @fontsource/caveat, /kalam, /indie-flower, /patrick-hand and others; those that the
packaged model learnt letters from, training/augment/fonts.txt, are not taken. Fashion-MNIST's images are the file
t10k-images-idx3-ubyte.gz below --fashion, for instance of Debian's package dataset-fashion-mnist.
"""

from __future__ import annotations

import gzip
import io
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from benchmarks.corruptions import CORRUPTIONS, corrupt
from benchmarks.report import conditions
from serving.contract import ModelOutput
from serving.models import repository
from serving.models.bundle import RELEASE
from serving.pictures.mnist_form import decode
from training.augment.fonts import find_fonts
from training.data.digits import load

PIXELS = 25_000_000
SCALE = 6
# Drawn by hand, these are a digit, or may be one.
ALIKE = "BbDgGIiJjlOoqQSsZz"
TAUGHT = Path(__file__).parent.parent / "training" / "augment" / "fonts.txt"

Picture = Any
Random = np.random.Generator


def png(image: Picture, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def large(digit: Picture, scale: float = SCALE) -> Picture:
    """Dark ink on white paper."""
    side = round(28 * scale)
    return 255 - np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def stroke(size: int) -> Callable[[Picture, Random], bytes]:
    """Broader by a filter of ``size`` at four times MNIST's scale, or thinner if negative."""
    chosen = ImageFilter.MinFilter(size) if size > 0 else ImageFilter.MaxFilter(-size)
    return lambda digit, _: png(np.asarray(Image.fromarray(large(digit, 4)).filter(chosen)))


def placed(digit: Picture, random: Random) -> bytes:
    """Somewhere in a frame of 600x800."""
    page, ink = np.full((600, 800), 255, np.uint8), large(digit, 3)
    y, x = random.integers(0, (600 - len(ink), 800 - len(ink)))
    page[y : y + len(ink), x : x + len(ink)] = ink
    return png(page)


def coloured(digit: Picture, random: Random) -> bytes:
    """Ink and paper of two colours that differ in brightness by at least 80."""
    while True:
        ink, paper = random.integers(0, 256, (2, 3))
        if abs(float((ink - paper) @ [0.299, 0.587, 0.114])) >= 80:
            break
    share = large(digit)[..., None] / 255
    return png((paper * share + ink * (1 - share)).astype(np.uint8))


def on_paper(digit: Picture, random: Random) -> bytes:
    """Photographed: grey ink, light from one side, the edge of a shadow, grain."""
    page = large(digit, 8).astype(float)
    y, x = np.mgrid[0 : 1 : len(page) * 1j, 0 : 1 : len(page) * 1j]
    turn = random.uniform(0, 2 * np.pi)
    light = 0.75 + 0.2 * (np.cos(turn) * (2 * x - 1) + np.sin(turn) * (2 * y - 1))
    light *= np.where(x + random.uniform(-1, 1) * y > random.uniform(0.3, 1), 1, 0.75)
    page = np.clip((60 + 0.6 * page) * light + random.normal(0, 5, page.shape), 0, 255)
    return png(page.astype(np.uint8), "JPEG", quality=60)


CHANGES: dict[str, Callable[[Picture, Random], bytes]] = {
    "as PNG": lambda d, _: png(d),
    "size: 56 pixels": lambda d, _: png(large(d, 2)),
    "size: 420 pixels": lambda d, _: png(large(d, 15)),
    "position: in 600x800": placed,
    "polarity: light on dark": lambda d, _: png(255 - large(d)),
    "stroke: thinner": stroke(-3),
    "stroke: broader": stroke(5),
    "colour": coloured,
    "JPEG, quality 10": lambda d, _: png(large(d), "JPEG", quality=10),
    "paper: shadow, grain, JPEG": on_paper,
}


class Reader:
    """The service's way from a picture to an answer, without the network."""

    def __init__(self, folder: Path, name: str) -> None:
        self.model = repository.load(folder, name)

    def __call__(self, pictures: Sequence[bytes]) -> tuple[ModelOutput, list[bool]]:
        read = [decode(picture, PIXELS) for picture in pictures]
        return self.images(np.stack([digit.image for digit in read]), {i: digit.reason for i, digit in enumerate(read)})

    def images(self, images: Picture, reasons: Any = None) -> tuple[ModelOutput, list[bool]]:
        answers = self.model.classifier.classify(images)
        return answers, [reason is None for reason in self.model.judge(images, answers, reasons or {})]


def calibration_error(answers: ModelOutput, truth: Picture, bins: int = 15) -> float:
    confidence = answers.probabilities.max(axis=1)
    gap = confidence - (answers.probabilities.argmax(axis=1) == truth)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(index, gap, bins)).sum() / len(truth))


def row(name: str, answers: ModelOutput, accepted: list[bool], truth: Picture) -> str:
    right = (answers.probabilities.argmax(axis=1) == truth).mean()
    return (
        f"| {name} | {len(truth)} | {right:.2%} | {calibration_error(answers, truth):.2%} | {np.mean(accepted):.1%} |"
    )


def unseen(folder: Path) -> list[Path]:
    """The fonts of a folder.

    Raises:
        click.UsageError: there are none, or some that the packaged model learnt letters from.
    """
    taught = {package.split("/")[1] for package in TAUGHT.read_text().split()}
    fonts = find_fonts(folder)
    known = [font for font in fonts if taught & set(font.parts)]
    if known or not fonts:
        raise click.UsageError(f"--fonts {folder}: " + (f"{known[0]} taught the model" if known else "no fonts there"))
    return fonts


def rendered(fonts: list[Path], characters: str) -> tuple[list[bytes], Picture]:
    """Each character in each font, dark on white."""
    pictures = []
    for font in fonts:
        shaped = ImageFont.truetype(str(font), 96)
        for character in characters:
            page = Image.new("L", (180, 180), 255)
            ImageDraw.Draw(page).text((90, 90), character, 0, shaped, anchor="mm")
            pictures.append(png(np.asarray(page)))
    return pictures, np.array(list(characters) * len(fonts))


def fashion(folder: Path) -> Picture:
    path = next(folder.rglob("t10k-images-idx3-ubyte.gz"))
    return np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8).reshape(-1, 28, 28)


def refused(name: str, answers: ModelOutput, accepted: list[bool], clean: ModelOutput) -> str:
    line = f"| {name} | {len(accepted)} | {1 - np.mean(accepted):.1%} |"
    if answers.novelty is None or clean.novelty is None:
        return f"{line} |"
    scores = np.concatenate([clean.novelty, answers.novelty])
    return f"{line} {roc_auc_score(np.arange(len(scores)) >= len(clean.novelty), scores):.4f} |"


@click.command()
@click.option("--repository", "folder", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
@click.option("--model", default="mnist", show_default=True)
@click.option("--images", default=10_000, show_default=True, help="Test images of each row, from the first.")
@click.option("--fonts", type=click.Path(path_type=Path, exists=True), help="Folder with handwriting fonts.")
@click.option("--fashion", "clothes", type=click.Path(path_type=Path, exists=True), help="Folder with Fashion-MNIST.")
@click.option("--data", "mnist", type=click.Path(path_type=Path), help="Folder with MNIST.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the tables here too.")
def main(
    folder: Path,
    model: str,
    images: int,
    fonts: Path | None,
    clothes: Path | None,
    mnist: Path | None,
    save: Path | None,
) -> None:
    """Measure, and print tables."""
    lines: list[str] = []

    def tell(text: str) -> None:
        click.echo(text)
        lines.append(text)

    read = Reader(folder, model)
    test = load("mnist", folder=mnist).test
    digits, truth = test.images.numpy()[:images], test.labels.numpy()[:images]
    model_named = f"model {read.model.name} version {read.model.version}"
    tell(conditions("onnxruntime", "numpy", "pillow", also=model_named) + "\n")
    form = "| {} | images | right | calibration error | accepted |\n|---|---|---|---|---|"
    tell(form.format("MNIST's test digits as pictures"))
    clean, accepted = read.images(digits)
    tell(row("pixels", clean, accepted, truth))
    for name, change in CHANGES.items():
        random = np.random.default_rng(0)
        tell(row(name, *read([change(digit, random) for digit in digits]), truth))
    tell("\n" + form.format("MNIST-C, made anew"))
    right, errors = [], []
    for name in CORRUPTIONS:
        answers, accepted = read([png(image) for image in corrupt(name, digits, seed=0)])
        tell(row(name.replace("_", " "), answers, accepted, truth))
        right.append((answers.probabilities.argmax(axis=1) == truth).mean())
        errors.append(calibration_error(answers, truth))
    tell(f"| **mean** | | **{np.mean(right):.2%}** | **{np.mean(errors):.2%}** | |")
    tell("\n" + form.format("other digits"))
    small = load_digits()
    tell(
        row(
            "scikit-learn's load_digits",
            *read([png((d * 255 / 16).astype(np.uint8)) for d in small.images]),
            small.target,
        )
    )
    if fonts:
        pictures, drawn = rendered(unseen(fonts), string.digits)
        tell(row("handwriting fonts", *read(pictures), drawn.astype(int)))
    tell("\n| no digits | images | refused | AUROC of novelty |\n|---|---|---|---|")
    if clothes:
        things = fashion(clothes)[:images]
        tell(refused("Fashion-MNIST, pixels", *read.images(things), clean))
        tell(refused("Fashion-MNIST, pictures", *read([png(thing) for thing in things]), clean))
    if fonts:
        pictures, drawn = rendered(unseen(fonts), string.ascii_letters)
        unlike = ~np.isin(drawn, list(ALIKE))
        tell(refused("letters of the fonts", *read(pictures), clean))
        chosen = [picture for picture, counts in zip(pictures, unlike, strict=True) if counts]
        tell(refused(f"letters without {ALIKE}", *read(chosen), clean))
    if save:
        save.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Fit the constants of serving/pictures/doubt.py, and print them.

    python -m benchmarks.fit_doubt --others FOLDER [--images 60] [--rejected 0.008]

FOLDER holds pictures of anything but digits, such as icons, photos and drawings of things. Photos of blank paper, as in
benchmarks/paper.py, join them. The digits are validation images, drawn as in benchmarks/drawings.py, photos.py,
pages.py and scenes.py: a fifth of the last two with faint ink, a fifth out of focus. Some more digits have few pixels.
Only pictures that the network alone accepts count, of digits those that it reads right. The weights are those of a
logistic regression of "other" on the novelty score and the properties, divided by the weight of the novelty score. None
is below 0. Digits and other things count equally.

USUAL is then the sum at which the share ``--rejected`` of the digits is no longer accepted. Before that, every second
kind of digits and every second picture of other things is left out, and a table shows the shares that are rejected
among them: with all properties, and without each.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageFilter

from benchmarks.digits import load_digits
from benchmarks.drawings import DRAWINGS, Array, Random, draw, encode
from benchmarks.pages import PAGES, PHONE_48
from benchmarks.paper import BLANK, blank
from benchmarks.photos import COLOUR_MAP, PHOTOS
from benchmarks.scenes import SCENES
from serving.errors import InputError
from serving.models import repository
from serving.models.model import Model
from serving.pictures.doubt import WEIGHTS
from serving.pictures.mnist_form import to_mnist_form
from serving.settings import RELEASE, Settings

# Photos of each kind of blank paper. The network accepts about as many of them as of 2,000 icons and drawings.
BLANK_PHOTOS = 300


def digits(count: int) -> Iterator[tuple[str, bytes, int]]:
    """Yield the kind, the picture and the label of ``count`` digits of each kind."""
    images, labels = load_digits("validation")
    random = np.random.default_rng(0)
    for name, page in {**PAGES, **SCENES}.items():
        if name != PHONE_48:
            for place, i in enumerate(random.integers(0, len(images), count)):
                content = page(images[i], random)
                yield name, (faded, blurred)[place % 5](content, random) if place % 5 < 2 else content, int(labels[i])
    for name, photo in PHOTOS.items():
        # A colour map has as many colours as an icon, and few people send one.
        for i in random.integers(0, len(images), count // 3 if name == COLOUR_MAP else count):
            yield name, photo(images[i], random), int(labels[i])
    for name in DRAWINGS:
        some = random.integers(0, len(images), count)
        for content, label in zip(draw(name, images[some]), labels[some], strict=True):
            yield name, content, int(label)
    for i in random.integers(0, len(images), 4 * count):
        small = Image.fromarray(images[i][2:26, 2:26]).resize((int(random.integers(8, 15)),) * 2, Image.Resampling.BOX)
        yield "few pixels", encode(np.asarray(small)), int(labels[i])


def faded(content: bytes, random: Random) -> bytes:
    """Return a picture with a tenth to a third of its contrast, as a hard pencil leaves it."""
    page = np.asarray(Image.open(io.BytesIO(content)).convert("L"), np.float32)
    paper = np.median(page)
    faint = paper + random.uniform(0.1, 0.35) * (page - paper)
    return encode(np.clip(np.rint(faint), 0, 255).astype(np.uint8))


def blurred(content: bytes, random: Random) -> bytes:
    """Return a picture that is out of focus."""
    page = Image.open(io.BytesIO(content)).convert("L")
    return encode(np.asarray(page.filter(ImageFilter.GaussianBlur(random.uniform(0.005, 0.03) * min(page.size)))))


def others(folder: Path) -> Iterator[tuple[str, bytes, None]]:
    """Yield two kinds, each with every second picture of a folder and every second photo of blank paper."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for i, file in enumerate(files):
        yield f"other {i % 2}", file.read_bytes(), None
    random = np.random.default_rng(1)
    for i, name in enumerate(BLANK_PHOTOS * list(BLANK)):
        yield f"other {i % 2}", blank(name, random, photo=True), None


def accepted(model: Model, pictures: Iterable[tuple[str, bytes, int | None]]) -> tuple[list[str], Array]:
    """Return the kind and the properties of each picture that the network alone accepts, and reads right."""
    kinds, rows = [], []
    for kind, content, label in pictures:
        try:
            digit = to_mnist_form(content, Settings.max_pixels)
        except InputError:
            continue
        readings = (digit, *digit.others)
        output = model.classifier.classify(np.stack([reading.image for reading in readings]))
        best = int(output.novelty.argmin())
        reason = digit.reason if best == 0 else None
        [reason] = model.judge(readings[best].image[None], output.slice(best, best + 1), {0: reason})
        if reason is None and label in (None, int(output.probabilities[best].argmax())):
            kinds.append(kind)
            rows.append([float(output.novelty[best]), *readings[best].properties.scaled()])
    return kinds, np.array(rows)


def fit(mine: Array, theirs: Array) -> Array:
    """Return the weights of the properties, for the weight 1 of the novelty score."""
    rows = torch.from_numpy(np.concatenate([mine, theirs]))
    is_other = torch.cat([torch.zeros(len(mine)), torch.ones(len(theirs))]).double()
    share = torch.where(is_other > 0, 0.5 / len(theirs), 0.5 / len(mine))
    # The squares of the roots are the weights.
    roots = torch.full((rows.shape[1],), 0.5, dtype=torch.double, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([roots, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = rows @ roots.square() + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, is_other, share, reduction="sum")
        value.backward()
        return value

    optimizer.step(loss)
    found: Array = roots.detach().square().numpy()
    return found[1:] / found[0]


def usual(mine: Array, weights: Array, threshold: float, rejected: float) -> float:
    """Return the sum up to which there is no doubt, so that this share of the digits is rejected."""
    return max(0.0, float(np.quantile(mine[:, 0] + mine[:, 1:] @ weights, 1 - rejected)) - threshold)


def rejected(rows: Array, weights: Array, threshold: float, limit: float) -> float:
    return float((rows[:, 0] + np.maximum(0, rows[:, 1:] @ weights - limit) > threshold).mean())


@click.command()
@click.option(
    "--others",
    "folder",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with pictures of other things.",
)
@click.option("--images", default=60, show_default=True, type=click.IntRange(min=1), help="Digits of each kind.")
@click.option("--rejected", "share", default=0.008, show_default=True, help="Share of the digits to reject.")
@click.option("--repository", "models", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
def main(folder: Path, images: int, share: float, models: Path) -> None:
    """Fit the constants of serving/pictures/doubt.py, and print them."""
    model = repository.load(models, "mnist")
    threshold = model.bundle.manifest.novelty.threshold
    kinds, mine = accepted(model, digits(images))
    halves, theirs = accepted(model, others(folder))
    order = sorted(set(kinds))
    even, first = np.array([order.index(kind) % 2 == 0 for kind in kinds]), np.array(halves) == "other 0"
    click.echo(
        f"Rejected, fitted on half of {len(mine)} digits and of {len(theirs)} other things, "
        "of the other halves:\n\n| properties | digits | other things |\n|---|---:|---:|"
    )
    for left_out in (None, *WEIGHTS):
        # The first column is the novelty score.
        columns = [0, *(1 + i for i, name in enumerate(WEIGHTS) if name != left_out)]
        own, their_own = mine[:, columns], theirs[:, columns]
        weights = fit(own[even], their_own[first])
        limit = usual(own[even], weights, threshold, share)
        shares = [rejected(rows, weights, threshold, limit) for rows in (own[~even], their_own[~first])]
        name = f"without {left_out}" if left_out else "all"
        click.echo(f"| {name} | {shares[0]:.1%} | {shares[1]:.1%} |")
    weights = fit(mine, theirs)
    limit = usual(mine, weights, threshold, share)
    shares = [rejected(rows, weights, threshold, limit) for rows in (mine, theirs)]
    click.echo(f"\nFitted on all: rejects {shares[0]:.1%} of the digits and {shares[1]:.1%} of the other things.")
    click.echo(f"WEIGHTS = {dict(zip(WEIGHTS, weights.round(2).tolist(), strict=True))}")
    click.echo(f"USUAL = {limit:.2f}")


if __name__ == "__main__":
    main()

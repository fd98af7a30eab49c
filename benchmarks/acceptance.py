"""Measure whether "accepted" means right: right predictions rejected, wrong ones accepted, and other pictures rejected.

    python -m benchmarks.acceptance --fonts FOLDER [--images 300] [--others FOLDER] [--accepted FOLDER] [--save FILE]
        [--plot docs/acceptance.png]

Each picture takes the path of a picture sent to /predict. All digits come from MNIST's test set, from scikit-learn's
load_digits and from strokes and fonts; the thresholds of the model were fitted on validation digits, which are training
images. --fonts: handwriting fonts that the model was not trained on, see benchmarks/robustness.py. --others: a folder
for each kind of pictures of other things, such as icons and photos.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.digits import spread
from benchmarks.drawings import DRAWINGS, Array, draw, render_digits, scans
from benchmarks.others import GOALS, other_pictures
from benchmarks.pages import PAGES, PHONE_48
from benchmarks.photos import PHOTOS
from benchmarks.polylines import draw_polylines
from benchmarks.report import conditions, save_option, tell
from benchmarks.robustness import MAX_PIXELS, unseen_fonts
from serving.contract import RejectionReason
from serving.errors import InputError
from serving.inference.readings import choose
from serving.models import repository
from serving.models.model import Model
from serving.pictures.mnist_form import to_mnist_form
from serving.settings import RELEASE
from training.data.digits import load

# The most right predictions that may be rejected, and the most wrong ones that may be accepted, of all pictures.
MOST_REJECTED_CLEAN, MOST_REJECTED, MOST_WRONG = 0.01, 0.04, 0.005
# Confidences for the table that helps to choose one's own threshold.
CONFIDENCES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
# Pictures of one folder that are tried.
MOST_OTHERS = 400
PIXELS, SCANS, POLYLINES, FONTS = "test set, pixels", "load_digits", "polylines", "digits of handwriting fonts"


@dataclass(frozen=True)
class Predictions:
    """What the model predicts for some pictures of digits."""

    confidence: Array
    is_right: Array
    reasons: list[RejectionReason | None]

    @property
    def accepted(self) -> Array:
        return np.array([reason is None for reason in self.reasons])

    def accepted_at(self, confidence: float) -> Array:
        """Return which predictions were accepted if ``confidence`` were the model's threshold."""
        others = np.array([reason in (None, "unsure") for reason in self.reasons])
        return others & (self.confidence >= confidence)

    @classmethod
    def of(cls, model: Model, images: Array, truth: Array, found: Mapping[int, RejectionReason | None]) -> Predictions:
        output = model.classifier.classify(images)
        right = output.probabilities.argmax(axis=1) == truth
        return cls(output.probabilities.max(axis=1), right, model.judge(images, output, found))

    @classmethod
    def to_pictures(cls, model: Model, pictures: Sequence[bytes], truth: Array) -> Predictions:
        """Return the predictions for picture files."""
        digits = choose(model, [to_mnist_form(picture, MAX_PIXELS) for picture in pictures])
        found = {i: digit.reason for i, digit in enumerate(digits)}
        return cls.of(model, np.stack([digit.image for digit in digits]), truth, found)

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        return cls(
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.is_right for part in parts]),
            [reason for part in parts for reason in part.reasons],
        )


def digits(model: Model, fonts: Sequence[Path], count: int) -> Iterator[tuple[str, Predictions]]:
    """Yield the predictions for each set of digits. ``count`` images of the test set are drawn in each way."""
    test = load("mnist").test
    images, truth = test.images.numpy(), test.labels.numpy()
    yield PIXELS, Predictions.of(model, images, truth, {})
    yield SCANS, Predictions.to_pictures(model, *scans())
    yield POLYLINES, Predictions.to_pictures(model, *draw_polylines())
    if fonts:
        yield FONTS, Predictions.to_pictures(model, *render_digits(list(fonts)))
    images, truth = spread(images, count), spread(truth, count)
    for name in DRAWINGS:
        yield f"drawing: {name}", Predictions.to_pictures(model, draw(name, images), truth)
    for name, page in PAGES.items():
        if name != PHONE_48:  # Drawing one takes a second, and the network gets the same images from smaller photos.
            rng = np.random.default_rng(0)
            pictures = [page(digit, rng) for digit in images]
            yield f"page: {name}", Predictions.to_pictures(model, pictures, truth)
    for name, photo in PHOTOS.items():
        rng = np.random.default_rng(0)
        pictures = [photo(digit, rng) for digit in images]
        yield f"photo: {name}", Predictions.to_pictures(model, pictures, truth)


def row(name: str, predictions: Predictions, most: float) -> str:
    right, accepted = predictions.is_right, predictions.accepted
    unsure = np.array([reason == "unsure" for reason in predictions.reasons])
    return (
        f"| {name} | {len(right)} | {(~right).mean():.2%} | {(~accepted)[right].mean():.1%} "
        f"| {unsure[right].mean():.1%} | {most:.0%} | {(accepted & ~right).mean():.2%} |"
    )


def table_of_digits(sets: Mapping[str, Predictions]) -> Iterator[str]:
    yield (
        "| digits | pictures | wrong | right predictions rejected | of them unsure | goal: at most "
        f"| wrong and accepted (goal: below {MOST_WRONG:.1%}) |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for name, predictions in sets.items():
        yield row(name, predictions, MOST_REJECTED_CLEAN if name == PIXELS else MOST_REJECTED)
    for group in ("drawing", "page", "photo"):
        yield row(f"**all {group}s**", in_group(sets, group), MOST_REJECTED)


def in_group(sets: Mapping[str, Predictions], group: str) -> Predictions:
    return Predictions.joined([predictions for name, predictions in sets.items() if name.startswith(group)])


def in_folders(folder: Path) -> dict[str, list[bytes]]:
    """Return the pictures of each folder in ``folder`` that can be decoded, at most ``MOST_OTHERS`` of each."""
    found: dict[str, list[bytes]] = {}
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        found[f"(own) {kind.name}"] = pictures = []
        files = sorted(path for path in kind.rglob("*") if path.is_file())
        for file in random.Random(0).sample(files, min(len(files), MOST_OTHERS)):
            content = file.read_bytes()
            with contextlib.suppress(InputError):
                to_mnist_form(content, MAX_PIXELS)
                pictures.append(content)
    return {name: pictures for name, pictures in found.items() if pictures}


def table_of_others(model: Model, sets: Mapping[str, list[bytes]], accepted: Path | None) -> Iterator[str]:
    yield "\n| not digits | pictures | rejected | of them unsure | goal: at least |\n|---|---:|---:|---:|---:|"
    for name, pictures in sets.items():
        predictions = Predictions.to_pictures(model, pictures, np.zeros(len(pictures), int))
        unsure = np.mean([reason == "unsure" for reason in predictions.reasons])
        goal = next((f"{share:.0%}" for kind, share in GOALS.items() if name.split(",")[0] == kind), "")
        yield f"| {name} | {len(pictures)} | {1 - predictions.accepted.mean():.1%} | {unsure:.1%} | {goal} |"
        if accepted:
            accepted.mkdir(parents=True, exist_ok=True)
            for i in np.flatnonzero(predictions.accepted):
                (accepted / f"{name}, {i}.png").write_bytes(pictures[i])


def curves(sets: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Return the sets of which the curve is shown."""
    pages = in_group(sets, "page")
    return {"MNIST's test set": sets[PIXELS], "load_digits": sets[SCANS], "generated pages": pages}


def table_of_curves(sets: Mapping[str, Predictions], model: Model) -> Iterator[str]:
    own = model.bundle.manifest.confidence
    names = list(curves(sets))
    yield "\nRight predictions kept, and wrong ones accepted (of all pictures), with another confidence threshold:\n"
    yield f"| confidence threshold | {' | '.join(names)} |\n|---|{'---:|' * len(names)}"
    for confidence in sorted({*CONFIDENCES, *([own.threshold] if own else [])}):
        cells = []
        for predictions in curves(sets).values():
            accepted = predictions.accepted_at(confidence)
            cells.append(
                f"{accepted[predictions.is_right].mean():.2%}; {(accepted & ~predictions.is_right).mean():.2%}"
            )
        mark = " (the model's own)" if own and confidence == own.threshold else ""
        yield f"| {confidence:.4g}{mark} | {' | '.join(cells)} |"


def plot_curves(sets: Mapping[str, Predictions], model: Model, path: Path) -> None:
    """Draw the share of right predictions kept against the share of wrong predictions accepted."""
    import matplotlib.pyplot as plt

    own = model.bundle.manifest.confidence
    steps = np.concatenate([[0], 1 - np.geomspace(0.7, 1e-6, 300)])
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=110)
    for name, predictions in curves(sets).items():
        at = [predictions.accepted_at(confidence) for confidence in steps]
        wrong = [100 * float((accepted & ~predictions.is_right).mean()) for accepted in at]
        kept = [100 * float(accepted[predictions.is_right].mean()) for accepted in at]
        [line] = axes.plot(wrong, kept, label=name)
        accepted = predictions.accepted
        here = 100 * (accepted & ~predictions.is_right).mean(), 100 * accepted[predictions.is_right].mean()
        axes.plot(*here, "o", color=line.get_color())
        for confidence in (0.5, 0.99):
            i = int(np.searchsorted(steps, confidence))
            axes.annotate(f"{confidence:g}", (wrong[i], kept[i]), (3, -9), textcoords="offset points", fontsize=8)
    title = f"dots: the model's own threshold, {own.threshold:.3f}" if own else "dots: no confidence threshold"
    axes.set(
        xlabel="wrong predictions accepted, % of all pictures", ylabel="right predictions kept, %", ylim=(88, 100.2)
    )
    axes.set_title(f"The lowest confidence moves from 0 (right) to 1 (left); {title}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


@click.command()
@click.option("--repository", "folder", type=click.Path(path_type=Path), default=RELEASE, help="Model repository.")
@click.option("--model", "name", default="mnist", show_default=True, help="Name of the model.")
@click.option(
    "--images",
    default=300,
    show_default=True,
    type=click.IntRange(min=1),
    help="Test images that are drawn in each way.",
)
@click.option("--copies", default=20, show_default=True, help="Number of drawings of each sign.")
@click.option("--fonts", type=click.Path(path_type=Path, exists=True), help="Folder with handwriting fonts.")
@click.option(
    "--others",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with a folder for each kind of pictures of other things.",
)
@click.option("--accepted", type=click.Path(path_type=Path), help="Folder for the accepted pictures of no digit.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the curve into this file.")
@save_option
def main(
    folder: Path,
    name: str,
    images: int,
    copies: int,
    fonts: Path | None,
    folders: Path | None,
    accepted: Path | None,
    plot: Path | None,
    save: Path | None,
) -> None:
    """Measure what the model accepts, and print tables."""
    hand = unseen_fonts(fonts) if fonts else []
    model = repository.load(folder, name)
    sets = dict(digits(model, hand, images))
    own = model.bundle.manifest.confidence
    thresholds = (
        f"model {model.name} version {model.version}: novelty threshold {model.bundle.manifest.novelty.threshold:.4g}, "
        f"confidence threshold {f'{own.threshold:.4g}' if own else 'none'}"
    )
    lines = [conditions("onnxruntime", "numpy", "pillow", "matplotlib", also=thresholds), "", *table_of_digits(sets)]
    others = other_pictures(hand, copies) | (in_folders(folders) if folders else {})
    lines += [*table_of_others(model, others, accepted), *table_of_curves(sets, model)]
    tell(lines, save)
    if plot:
        plot_curves(sets, model, plot)


if __name__ == "__main__":
    main()

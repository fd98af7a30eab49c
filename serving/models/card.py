"""The model card: what a model reads, what it was trained on, how good it is and where its limits are.

Everything comes from the manifest, so every bundle has a card, and it says nothing that is not certified. The export
writes it into the bundle as ``README.md``, in the form of Hugging Face. The service shows the same card as HTML.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any, NamedTuple

from serving.contract import AS_IS, DOTTED
from serving.models.bundle import FirstNetwork, Manifest
from serving.models.document import Block, Code, Heading, Items, Paragraph, Table, on_one_line, to_markdown

# A confusion matrix with more classes is too wide. The mistakes are then listed.
MAX_MATRIX = 26
MOST_MISTAKES = 20


class Data(NamedTuple):
    """A known data set: its name, the licence that its authors state, and its name at Hugging Face."""

    title: str
    licence: str
    hub: str = ""


DATA = {
    "mnist": Data("MNIST", "Creative Commons Attribution-ShareAlike 3.0", "ylecun/mnist"),
    "fashion-mnist": Data("Fashion-MNIST", "MIT", "zalando-datasets/fashion_mnist"),
    "kmnist": Data("Kuzushiji-MNIST", "Creative Commons Attribution-ShareAlike 4.0"),
    "emnist-letters": Data("EMNIST Letters", "not stated; its source is NIST Special Database 19"),
    "emnist-balanced": Data("EMNIST Balanced", "not stated; its source is NIST Special Database 19"),
    "qmnist": Data("QMNIST", "BSD; its source is NIST Special Database 19"),
    "usps": Data("USPS", "not stated"),
}

# Settings of a run that the card shows, and those that it shows only if they are in use.
SETTINGS = ("epochs", "optimizer", "batch_size", "learning_rate", "augment", "style", "teacher_weight", "seed")
OPTIONAL_SETTINGS = ("scripts", "outliers", "keep")

# Why the service rejects pictures. The other reasons have thresholds.
REASONS = {
    "several": "A picture of several symbols is rejected as several.",
    "empty": "A picture without ink is rejected as empty.",
}


def to_readme(manifest: Manifest) -> str:
    """Return the card as the ``README.md`` of a repository at Hugging Face, with its metadata block."""
    # JSON is YAML too.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata(manifest).items()]
    return "\n".join(["---", *lines, "---", "", to_markdown(title(manifest), blocks(manifest))])


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the metadata of Hugging Face: tags, data set, and results."""
    data = data_of(manifest)
    of = {"type": data.hub or on_one_line(_text(manifest, "dataset", "name")) or "unknown"}
    results = []
    for name, what, figures in _figures(manifest):
        dataset = of | {"name": f"{data.title}, {what}", "split": "test", "config": name}
        metrics = [{"type": metric, "value": round(value, 4)} for metric, value in figures.items()]
        results.append({"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics})
    return {
        "pipeline_tag": "image-classification",
        "library_name": "onnx",
        "tags": ["image-classification", "onnx", "mnist-service"],
        **({"datasets": [data.hub]} if data.hub else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": manifest.name, "results": results}],
    }


def title(manifest: Manifest) -> str:
    """Return the title of the card."""
    return f"{manifest.name} version {manifest.version}"


def data_of(manifest: Manifest) -> Data:
    """Return the data set of a model. Somebody's own data has the licence that its owner gives it."""
    name = on_one_line(_text(manifest, "dataset", "name"))
    known = None if _part(manifest, "dataset").get("own") else DATA.get(name)
    return known or Data(name or "not stated", "that of its owner")


def blocks(manifest: Manifest) -> list[Block]:
    """Return the sections of the card."""
    sections = (_purpose, _use, _training, _results, _classes, _calibration, _rejections, _latency, _limits, _origin)
    return [block for section in sections for block in section(manifest)]


def _others(first: FirstNetwork) -> str:
    """Return how a cascade decides the images that its first network does not decide."""
    if not first.share:
        return "The second one decides the others."
    return f"Both together decide the others: the first one counts {first.share:.0%}, the second one the rest."


def _purpose(manifest: Manifest) -> Iterator[Block]:
    labels = ", ".join(manifest.labels[:MAX_MATRIX]) + (", ..." if len(manifest.labels) > MAX_MATRIX else "")
    yield Paragraph(
        f"This model classifies a picture into one of {len(manifest.labels)} classes: {labels}. It says when it "
        "should not be trusted."
    )
    first, architecture = manifest.first, _text(manifest, "config", "model") or "not stated"
    if first is None:
        yield Paragraph(f"It is a network of {manifest.parameters:,} parameters (architecture: {architecture}).")
    else:
        smaller = _dictionary(first.training, "config").get("model", "not stated")
        yield Paragraph(
            f"It is a cascade of two networks with {manifest.parameters:,} parameters. The first one, with "
            f"{first.parameters:,} of them (architecture: {smaller}), decides the images that it is at least "
            f"{first.sure:.1%} sure about. These are {_percent(first.decided)} of the test images. {_others(first)} "
            f"The architecture of the second one is {architecture}."
        )
    yield Heading("What it reads")
    if manifest.prepare == AS_IS:
        yield Paragraph("It reads a whole picture, scaled down to 28x28 pixels in shades of grey.")
    else:
        dots = " Small pieces near the symbol, such as dots, belong to it." if manifest.prepare == DOTTED else ""
        several = "may" if manifest.several == "allowed" else "must not"
        yield Paragraph(
            "It reads a picture of one symbol. The service finds the ink, scales it, and centres it in 28x28 pixels, "
            f"bright on dark, as MNIST did. The picture {several} consist of several pieces.{dots}"
        )
    rows = [
        [kind, tensor.name, tensor.dtype, " x ".join("N" if axis < 0 else str(axis) for axis in tensor.shape)]
        for kind, tensors in (("input", manifest.inputs), ("output", manifest.outputs))
        for tensor in tensors
    ]
    yield Table(["tensor", "name", "type", "shape"], rows)


def _use(manifest: Manifest) -> Iterator[Block]:
    yield Heading("How to use it")
    model = "" if manifest.name == "mnist" else f" --model {manifest.name}"
    file = "digit.png" if set(manifest.labels) <= set(string.digits) else "symbol.png"
    yield Code(
        f"mnist-serve --repository models{model}\n"
        f"curl --data-binary @{file} -H 'content-type: image/png' http://127.0.0.1:8000/predict"
    )
    yield Paragraph("The folder models holds this bundle as models/NAME/VERSION. Any ONNX runtime runs its ONNX file.")


def _training(manifest: Manifest) -> Iterator[Block]:
    data, dataset, made = data_of(manifest), _part(manifest, "dataset"), manifest.provenance
    yield Heading("What it was trained on")
    rows = [["data set", data.title], ["licence of the data", data.licence]]
    counts = (("training images", "train_images"), ("validation images", "validation_images"))
    rows += [[text, f"{dataset[key]:,}"] for text, key in counts if isinstance(dataset.get(key), int)]
    yield Table(["data", "value"], rows)
    if manifest.first:
        own = _settings(_dictionary(manifest.first.training, "config"), _dictionary(made, "first"))
        yield Table(["setting of the first network", "value"], own)
    of_second = "setting of the second network" if manifest.first else "setting"
    yield Table([of_second, "value"], _settings(_part(manifest, "config"), made))
    yield Paragraph(f"{_fitted_on(dataset)} Nothing was fitted on the test set.")


def _fitted_on(dataset: dict[str, Any]) -> str:
    """Return what the thresholds were fitted on: without a validation set, the last training images take its place."""
    if dataset.get("validation_images") == 0:
        return (
            "There was no validation set, so thresholds and calibration were fitted on training images. New images may "
            "be rejected more often than the thresholds say."
        )
    return "Thresholds and calibration were fitted on the validation set."


def _settings(config: dict[str, Any], made: dict[str, Any]) -> list[list[str]]:
    """Return the rows about how a network was trained."""
    rows = [[name.replace("_", " "), str(config[name])] for name in SETTINGS if config.get(name) not in (None, "")]
    rows += [[name, str(config[name])] for name in OPTIONAL_SETTINGS if config.get(name)]
    if config.get("start"):
        rows.append(["started from another model", "yes"])
    if config.get("teacher"):
        rows.append(["teachers (distillation)", str(len(str(config["teacher"]).split(",")))])
    if fonts := _dictionary(made, "fonts"):
        rows.append(["handwriting fonts, for letters that are no digits", str(len(fonts))])
    return rows


def _results(manifest: Manifest) -> Iterator[Block]:
    yield Heading("Results")
    if not manifest.sets:
        rows = [[what, _percent(each["accuracy"])] for _, what, each in _figures(manifest)]
        yield Table(["set", "correct"], rows)
        return
    yield Table(
        ["set", "images", "correct", "accepted", "correct of the accepted", "calibration error"],
        [
            [
                f"{name}: {found.what}",
                f"{found.images:,}",
                _share(found.correct, found.images),
                _share(found.accepted, found.images),
                _share(found.accepted_correct, found.accepted),
                _percent(found.calibration_error),
            ]
            for name, found in manifest.sets.items()
        ],
    )


def _classes(manifest: Manifest) -> Iterator[Block]:
    labels, classes = manifest.labels, manifest.classes
    if len(classes) != len(labels):
        return
    yield Heading("Results by class")
    yield Paragraph(
        "On the test set. Recall is the share of the images of a class that are right. Precision is the share of the "
        "images with a predicted label for which that label is right."
    )
    yield Table(
        ["class", "images", "recall", "precision"],
        [
            [label, f"{each.images:,}", _share(each.correct, each.images), _share(each.correct, each.predicted)]
            for label, each in zip(labels, classes, strict=True)
        ],
    )
    mistakes = {(each.label, each.predicted): each.images for each in manifest.mistakes}
    if len(labels) <= MAX_MATRIX:
        yield Paragraph("Confusion matrix: a row for each true class, a column for each predicted class.")
        for i, each in enumerate(classes):
            mistakes[i, i] = each.correct
        indices = range(len(labels))
        rows = [[labels[i], *(str(mistakes.get((i, j), "") or "") for j in indices)] for i in indices]
        yield Table(["class", *labels], rows)
    elif mistakes:
        yield Paragraph("The most frequent mistakes:")
        known = [(i, j, count) for (i, j), count in mistakes.items() if max(i, j) < len(labels)]
        rows = [[labels[i], labels[j], str(count)] for i, j, count in known[:MOST_MISTAKES]]
        yield Table(["class", "predicted", "images"], rows)


def _calibration(manifest: Manifest) -> Iterator[Block]:
    yield Heading("Calibration")
    error = _number(manifest, "test", "calibration_error")
    said = "" if error is None else f" The expected calibration error on the test set is {_percent(error)}."
    each = "The logits of each network are divided by its own calibration temperature, those of the second one by"
    one = "The logits are divided by the calibration temperature"
    yield Paragraph(f"{each if manifest.first else one} {manifest.temperature:.3f}.{said}")


def _rejections(manifest: Manifest) -> Iterator[Block]:
    yield Heading("How often and why it rejects")
    limits = [f"An image with a novelty score above {manifest.novelty.threshold:.3f} is rejected as no digit."]
    if manifest.confidence:
        lowest = manifest.confidence.threshold
        limits.append(f"A prediction with a confidence below {lowest:.3f} is rejected as unsure.")
    limits += [REASONS["empty"], *([REASONS["several"]] if manifest.several == "rejected" else [])]
    yield Items(limits)
    rows = [
        [name, reason, _share(count, found.images)]
        for name, found in manifest.sets.items()
        for reason, count in found.reasons.items()
    ]
    if not rows:
        shares = {"no digit": manifest.novelty.false_rejections}
        if manifest.confidence:
            shares["unsure"] = manifest.confidence.false_rejections
        rows = [[part, reason, _percent(share)] for reason, found in shares.items() for part, share in found.items()]
    yield Table(["set", "reason", "share of the images"], rows)


def _latency(manifest: Manifest) -> Iterator[Block]:
    latency = manifest.latency
    if latency is None:
        return
    yield Heading("Latency")
    yield Paragraph(
        f"One image takes {latency.alone:.0f} microseconds alone, and {latency.batch:.0f} in a batch of "
        f"{latency.batch_size}: {manifest.serve} on one thread of {latency.cpu}."
    )


def _limits(manifest: Manifest) -> Iterator[Block]:
    yield Heading("Limits")
    limits = [
        f"It knows only the {len(manifest.labels)} classes above. It rejects much of what belongs to none of them, and "
        "accepts some.",
        "An accepted prediction can be wrong. The results above say how often. Let a person check what matters.",
        f"Results on pictures that differ from {data_of(manifest).title} are lower. Measure on your own pictures.",
    ]
    if manifest.sets:
        name, worst = min(manifest.sets.items(), key=lambda item: item[1].correct / max(1, item[1].images))
        limits.append(f"The worst of the sets above is {name}: {_share(worst.correct, worst.images)} are correct.")
    yield Items(limits)


def _origin(manifest: Manifest) -> Iterator[Block]:
    yield Heading("Where it comes from")
    revisions = {
        f"source revision of the {step}": str(made["revision"])
        for step in ("training", "export")
        if isinstance(made := manifest.provenance.get(step), dict) and made.get("revision")
    }
    yield Table(["made with", "version"], [[name, value] for name, value in (revisions | manifest.versions).items()])
    digests = _part(manifest, "dataset").get("digests")
    digests = digests if isinstance(digests, dict) else {}
    files = {name: file.sha256 for name, file in manifest.files.items()}
    rows = [[name, str(digest)] for name, digest in {**digests, **files}.items()]
    yield Table(["file", "SHA-256"], rows)


def _figures(manifest: Manifest) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield the name, the description, and the figures of each set."""
    for name, found in manifest.sets.items():
        accuracy, accepted = (count / max(1, found.images) for count in (found.correct, found.accepted))
        yield name, found.what, {"accuracy": accuracy, "accepted": accepted}
    if not manifest.sets and (accuracy_of_test := _number(manifest, "test", "accuracy")) is not None:
        yield "test", "test set", {"accuracy": accuracy_of_test}


def _part(manifest: Manifest, name: str) -> dict[str, Any]:
    """Return a part of what the manifest says about the training. Any JSON may stand there."""
    return _dictionary(manifest.training, name)


def _dictionary(parts: dict[str, Any], name: str) -> dict[str, Any]:
    found = parts.get(name)
    return found if isinstance(found, dict) else {}


def _text(manifest: Manifest, part: str, name: str) -> str:
    found = _part(manifest, part).get(name)
    return found if isinstance(found, str) else ""


def _number(manifest: Manifest, part: str, name: str) -> float | None:
    found = manifest.result.get(part)
    value = found.get(name) if isinstance(found, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _share(part: int, whole: int) -> str:
    return _percent(part / whole) if whole else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"

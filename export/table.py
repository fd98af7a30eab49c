"""The manifest of a bundle as text, with tables."""

from __future__ import annotations

from typing import Any

from serving.models.bundle import Bundle, FirstNetwork


def table(bundle: Bundle) -> str:
    """Return the manifest as text with tables."""
    manifest = bundle.manifest
    config, test = manifest.training["config"], manifest.result["test"]
    first = f"cascade of {manifest.first.training['config']['model']} and " if manifest.first else ""
    before = ", from an earlier model" if config.get("start") else ""
    lines = [
        f"{manifest.name} version {manifest.version}: {first}{config['model']}, {manifest.parameters:,} parameters, "
        f"trained on {config['dataset']}, epochs: {config['epochs']}{before}",
        f"test set: {test['correct']} of {test['images']} correct ({test['accuracy']:.2%}), "
        f"loss {test['loss']:.4f} after calibration",
        *_replay_lines(manifest.training["dataset"].get("replay")),
        *_first_lines(manifest.first),
        "",
        f"{'format':12} {'images':>7} {'labels differ':>14} {'logits differ':>14} {'tolerance':>10}",
    ]
    lines += [
        f"{name:12} {found.images:7} {found.labels_differing:14} "
        f"{found.logits_difference:14.2g} {found.tolerance:10.0e}"
        for name, found in manifest.equivalence.items()
    ]
    lines += [
        "",
        f"calibration temperature {manifest.temperature:.3f}",
        f"novelty threshold {manifest.novelty.threshold:.3f}: "
        f"{manifest.novelty.false_rejections['test']:.2%} of the test images are above it",
    ]
    if manifest.confidence:
        lines += [
            f"confidence threshold {manifest.confidence.threshold:.3f}: "
            f"{manifest.confidence.false_rejections['test']:.2%} of the test images are below it"
        ]
    if manifest.microseconds:
        lines += ["", f"{'file':22} {'correct':>8} {'us per image':>12}"]
        lines += [
            f"{name:22} {manifest.correct[name]:8} {spent:12.1f}{'  served' if name == manifest.serve else ''}"
            for name, spent in manifest.microseconds.items()
        ]
    lines += ["", f"{'file':22} {'bytes':>8}  SHA-256"]
    lines += [f"{name:22} {file.bytes:8}  {file.sha256}" for name, file in manifest.files.items()]
    return "\n".join(lines)


def _replay_lines(found: dict[str, Any] | None) -> list[str]:
    """Return what the manifest says about the replay data set."""
    if not found:
        return []
    before = "" if found["errors_before"] is None else f", {found['errors_before']} before"
    errors = f"{found['errors']} error{'s' * (found['errors'] != 1)}"
    return [f"{found['name']}, replayed: {errors} of {found['images']} test images{before}"]


def _first_lines(first: FirstNetwork | None) -> list[str]:
    """Return what the manifest says about the first network of a cascade."""
    if not first:
        return []
    others = f", and counts {first.share:.0%} for the others" if first.share else ""
    return [
        f"first network: {first.training['config']['model']}, {first.parameters:,} of the parameters, decides "
        f"{first.decided:.1%} of the test images{others}"
    ]

"""The thresholds of a published bundle, fitted again through its ONNX file."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import torch

from export import thresholds
from serving.models import repository
from serving.settings import RELEASE


def test_bundle_gets_thresholds_and_keeps_everything_else(mnist, monkeypatch):
    few = torch.arange(300)
    splits = replace(mnist, validation=mnist.train.take(few), test=mnist.test.take(few))
    monkeypatch.setattr(thresholds, "load", lambda *_, **__: splits)
    model = repository.load(RELEASE, "mnist")
    older = msgspec.structs.replace(model.bundle.manifest, confidence=None)
    fitted = thresholds.refitted(older, model.classifier)
    assert fitted.confidence is not None
    assert 0.3 < fitted.confidence.threshold < 1
    assert {*fitted.confidence.false_rejections} == {*fitted.novelty.false_rejections} == {"validation", "test"}
    assert sum(fitted.reference.labels) == 300
    unchanged = {"novelty": older.novelty, "confidence": None, "reference": older.reference}
    assert msgspec.structs.replace(fitted, **unchanged) == older


def test_packaged_bundle_has_both_thresholds():
    manifest = repository.load(RELEASE, "mnist").bundle.manifest
    assert manifest.confidence is not None
    assert manifest.novelty.false_rejections["test"] + manifest.confidence.false_rejections["test"] < 0.02

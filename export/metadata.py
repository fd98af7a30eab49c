"""What an ONNX file says about itself (its ``metadata_props``), for people who have it without its manifest."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import msgspec
import onnx

from serving.contract import AS_IS, DOTTED, SYMBOL, Preparation
from serving.models import bundle
from serving.models.bundle import Manifest
from serving.models.card import DATA
from training.checkpoint import write_atomically
from training.source import DISTRIBUTION

INK_ON_PAPER = "images: uint8 [N, 28, 28], 0 is paper and 255 is ink, as in MNIST; the graph scales them"
INPUT_RULES: dict[Preparation, str] = {
    SYMBOL: INK_ON_PAPER,
    DOTTED: INK_ON_PAPER,
    AS_IS: "images: uint8 [N, 28, 28], whole pictures, 0 is black and 255 is white; the graph scales them",
}


def metadata(manifest: Manifest) -> dict[str, str | None]:
    """Return what each ONNX file of a bundle says. A key with None is left out of the file."""
    own = manifest.training["dataset"].get("own")
    producer = manifest.provenance.get("export", {}).get("version", importlib.metadata.version(DISTRIBUTION))
    return {
        "labels": "\n".join(manifest.labels),
        "name": manifest.name,
        "version": str(manifest.version),
        "producer": f"{DISTRIBUTION} {producer}",
        "input": INPUT_RULES[manifest.prepare],
        "data_license": "that of its owner" if own else DATA[manifest.training["dataset"]["name"]].licence,
        "weights_sha256": manifest.training["model_sha256"],
        "first_weights_sha256": manifest.first and manifest.first.training["model_sha256"],
        "temperature": str(manifest.temperature),
        "threshold": str(manifest.novelty.threshold),
        "confidence": None if manifest.confidence is None else str(manifest.confidence.threshold),
    }


def onnx_files(manifest: Manifest) -> list[str]:
    """Return the names of the ONNX files of a bundle."""
    return [name for name in (bundle.ONNX, bundle.INT8) if name in manifest.files]


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Write the metadata into the ONNX files in ``folder``, and return the manifest with their new digests."""
    described = {}
    for name in onnx_files(manifest):
        model = onnx.load(folder / name)
        # The quantizer adds metadata of its own.
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {key: value for key, value in metadata(manifest).items() if value})
        write_atomically(folder / name, model.SerializeToString())
        described[name] = bundle.file_of(folder / name)
    return msgspec.structs.replace(manifest, files=manifest.files | described)

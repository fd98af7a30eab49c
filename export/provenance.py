"""How a bundle was made: a part of its manifest, and the same as an in-toto statement with SLSA's predicate.

https://slsa.dev/spec/v1.0/provenance describes the statement. The signature of the bundle covers it.
"""

from __future__ import annotations

import datetime
import importlib.metadata
from typing import Any

import msgspec

from serving.models.bundle import Manifest
from training.source import DISTRIBUTION, host, revision

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD_TYPE = f"urn:{DISTRIBUTION}:train-and-export:1"
# PyPI's packages among the versions of a manifest.
PACKAGES = ("torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxscript")

# The weights of a run, and of the run of a cascade's first network. Then the names of their settings.
WEIGHTS, FIRST_WEIGHTS = "model.pt", "model.pt of the first network"
CONFIGS = {WEIGHTS: "config", FIRST_WEIGHTS: "config of the first network"}


def provenance(record: dict[str, Any], first: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return where a bundle comes from that this process makes of the run with this ``run.json``.

    Args:
        first: the ``run.json`` of the first network of a cascade.
    """
    exported = {
        "revision": revision(),
        "host": host(),
        "version": importlib.metadata.version(DISTRIBUTION),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return _of_run(record) | {"export": exported} | ({"first": _of_run(first)} if first else {})


def _of_run(record: dict[str, Any]) -> dict[str, Any]:
    """Return where a run comes from. The service shows it, so it has no paths: digests name the teachers."""
    return {
        "training": {"revision": record.get("revision", ""), "host": record.get("host", {})},
        "seed": record["config"].get("seed"),
        "teachers": sorted(record.get("teachers", {}).values()),
        "fonts": record.get("fonts", {}),
        "start": sorted(record.get("start", {}).values()),
    }


def statement(manifest: Manifest) -> bytes:
    """Return the statement about the files that the manifest lists, as JSON."""
    said = manifest.provenance
    exported = said.get("export", {})
    finished = {"finishedOn": exported["time"].replace("+00:00", "Z")} if "time" in exported else {}
    content = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": file.sha256}} for name, file in manifest.files.items()],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "name": manifest.name,
                    **{CONFIGS[name]: training.get("config", {}) for name, training in _trainings(manifest).items()},
                },
                "internalParameters": {"versions": manifest.versions} | _hosts(said),
                "resolvedDependencies": _dependencies(manifest),
            },
            "runDetails": {
                "builder": {"id": f"urn:{DISTRIBUTION}:mnist-export", "version": _builder(exported)},
                "metadata": finished,
                "byproducts": [
                    {"name": name, "digest": {"sha256": training["model_sha256"]}}
                    for name, training in _trainings(manifest).items()
                ],
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _trainings(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return what the manifest holds of each run, by the name of the weights."""
    return {WEIGHTS: manifest.training} | ({FIRST_WEIGHTS: manifest.first.training} if manifest.first else {})


def _dependencies(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the data, the other models, the fonts, the source and the packages that the bundle was made of."""
    said = manifest.provenance
    digests = {f"data {name}": each for name, each in manifest.training.get("dataset", {}).get("digests", {}).items()}
    digests |= _digests(said) | _digests(said.get("first") or {}, " of the first network")
    found: list[dict[str, Any]] = [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()]
    for step, made in _steps(said).items():
        commit, _, changed = str(made.get("revision", "")).partition("-")
        if commit:
            notes = {"annotations": {"changed": True}} if changed else {}
            found.append({"name": f"source of the {step}", "digest": {"gitCommit": commit}, **notes})
    packages = {name: manifest.versions[name] for name in PACKAGES if name in manifest.versions}
    return found + [{"uri": f"pkg:pypi/{name}@{version}"} for name, version in packages.items()]


def _digests(said: dict[str, Any], whose: str = "") -> dict[str, str]:
    """Return the digests of what a run learnt from, beside its data."""
    return {
        **{f"font {name}{whose}": digest for name, digest in said.get("fonts", {}).items()},
        **{f"teacher {i}{whose}": digest for i, digest in enumerate(said.get("teachers", []))},
        **{f"first weights {i}{whose}": digest for i, digest in enumerate(said.get("start", []))},
    }


def _steps(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return where and when each step was done."""
    steps: dict[str, dict[str, Any]] = {step: said[step] for step in ("training", "export") if step in said}
    if first := said.get("first"):
        steps["training of the first network"] = first.get("training", {})
    return steps


def _hosts(said: dict[str, Any]) -> dict[str, Any]:
    return {f"host of the {step}": made["host"] for step, made in _steps(said).items() if made.get("host")}


def _builder(exported: dict[str, Any]) -> dict[str, str]:
    return {DISTRIBUTION: exported["version"]} if "version" in exported else {}

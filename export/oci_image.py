"""A published bundle as an OCI image: one layer with the model repository below ``/models``, as in KServe's modelcars.

The same bundle always gives the same bytes, and so the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export import triton
from export.oci_layer import Layer
from serving.errors import BundleError
from serving.models import bundle
from serving.models.bundle import MAX_BUNDLE_BYTES, Bundle
from serving.settings import NAME_PATTERN

ROOT = "models"
MEMBER = re.compile(rf"(?:\./)?{ROOT}/({NAME_PATTERN})/([1-9][0-9]{{0,17}})/([A-Za-z0-9][A-Za-z0-9._+-]{{0,99}})")

# A bundle has about ten.
MAX_FILES = 100

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
SIGNATURE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SBOM_TYPE = "application/vnd.cyclonedx+json"


@dataclass(frozen=True)
class Blob:
    """Bytes in a registry, and what its manifests say about them."""

    media_type: str
    content: bytes = field(repr=False)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    @property
    def descriptor(self) -> dict[str, Any]:
        notes = {"annotations": self.notes} if self.notes else {}
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content), **notes}


@dataclass(frozen=True)
class Image:
    """A manifest, and the blobs that it names."""

    manifest: Blob
    blobs: tuple[Blob, ...]


def image_of(found: Bundle) -> Image:
    """Return a bundle as an image. Any engine can unpack it, and the model files are below /models."""
    manifest = found.manifest
    layer = _layer(found)
    labels = {
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": str(manifest.version),
    }
    config = {
        # The image holds data only. An engine wants to see a machine all the same.
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "mnist-export push"}],
    }
    blobs = Blob(CONFIG_TYPE, _json(config)), Blob(LAYER_TYPE, gzip.compress(layer, mtime=0))
    return Image(_manifest(blobs[0], blobs[1:], annotations=labels), blobs)


def referrer(subject: Blob, kind: str, name: str, content: bytes) -> Image:
    """Return an artifact about an image: a file, and a manifest that names the image as its subject."""
    empty, file = Blob(EMPTY_TYPE, b"{}"), Blob(kind, content, {"org.opencontainers.image.title": name})
    about = {key: subject.descriptor[key] for key in ("mediaType", "digest", "size")}
    return Image(_manifest(empty, (file,), artifactType=kind, subject=about), (empty, file))


def index_of(known: list[dict[str, Any]], added: Image, kind: str) -> Blob:
    """Return the list of the referrers of an image, for a registry that keeps none itself, with one more in it."""
    entry = added.manifest.descriptor | {"artifactType": kind}
    others = [each for each in known if each.get("digest") != entry["digest"]]
    return Blob(INDEX_TYPE, _json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*others, entry]}))


def unpack(layer: bytes, folder: Path) -> tuple[str, int]:
    """Write the files of the one bundle in a layer into ``folder``. Return the name and the version of the bundle.

    Raises:
        BundleError: the layer holds no bundle or several, or it is malformed.
    """
    places: set[tuple[str, str]] = set()
    total = count = 0
    for name, size, pieces in Layer(layer).files():
        match = MEMBER.fullmatch(name)
        # Other files belong to a base image, and no bundle has one with an odd name. A link could lead to any file of
        # this machine.
        if not match:
            continue
        places.add((match[1], match[2]))
        total, count = total + size, count + 1
        if len(places) > 1:
            raise BundleError("the image holds several bundles")
        if total > MAX_BUNDLE_BYTES or count > MAX_FILES:
            raise BundleError(f"the image has a bundle of more than {MAX_BUNDLE_BYTES} bytes or {MAX_FILES} files")
        with (folder / match[3]).open("wb") as file:
            file.writelines(pieces)
    if not places:
        raise BundleError(f"the image holds no bundle below /{ROOT}")
    [(model, version)] = places
    return model, int(version)


def _layer(found: Bundle) -> bytes:
    """Return a tar archive with the bundle, and the configuration for Triton that stands beside it."""
    name, version = found.manifest.name, str(found.manifest.version)
    files = {f"{version}/{path.name}": path for path in sorted(found.folder.iterdir()) if _belongs(path.name, found)}
    config = found.folder.parent / triton.CONFIG
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in (ROOT, f"{ROOT}/{name}", f"{ROOT}/{name}/{version}"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for inside, path in sorted(({triton.CONFIG: config} if config.exists() else {}).items() | files.items()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{ROOT}/{name}/{inside}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _belongs(name: str, found: Bundle) -> bool:
    return name in (bundle.MANIFEST, bundle.SIGNATURE) or name in found.manifest.files


def _manifest(config: Blob, layers: tuple[Blob, ...], **more: Any) -> Blob:
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
        **more,
    }
    return Blob(MANIFEST_TYPE, _json(content))


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()

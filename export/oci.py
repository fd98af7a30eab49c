"""Push a published bundle to an OCI registry, and pull one from there, with the package oras."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import oci_image, triton
from export.oci_image import Blob, Image
from export.staging import moved, staging_folder
from serving.errors import BundleError, first_line, printable, quoted
from serving.hosts import is_loopback
from serving.models import bundle, disk
from serving.models.bundle import MAX_BUNDLE_BYTES, Bundle
from serving.models.model import load_folder
from serving.models.trust import Trust
from training.checkpoint import write_atomically

REFERENCE = re.compile(
    r"oci://(?P<registry>[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
RULE = "must be like oci://registry.example.org/digits/mnist:1, in lower-case letters"
MAX_MANIFEST_BYTES = 4_000_000


class RegistryError(Exception):
    """A registry cannot be reached, or it rejects or lacks something. The message gives the reason."""


@dataclass(frozen=True)
class ImageReference:
    """The place of an image: a registry, a name there, and a tag or a digest."""

    registry: str
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Return the reference in ``oci://registry/name:tag``.

        Raises:
            RegistryError: it has another form.
        """
        match = REFERENCE.fullmatch(text)
        if not match:
            raise RegistryError(f"{text}: {RULE}")
        return cls(match["registry"], match["name"], match["digest"] or match["tag"] or "latest")


class Remote:
    """A name in a registry.

    Args:
        plain: use HTTP and not HTTPS. On this machine HTTP is usual.

    Raises:
        RegistryError: the package oras is missing.
    """

    def __init__(self, place: ImageReference, *, plain: bool = False) -> None:
        try:
            from oras.container import Container

            from export.oci_session import Adapter, Client, host_of, wants_password
        except ImportError as error:
            raise RegistryError(
                f"{place.registry}: needs the package oras; install it with: pip install oras"
            ) from error
        plain = plain or is_loopback(host_of(place.registry))
        self._place, self._client = place, Client(insecure=plain)
        for scheme in ("https://", "http://"):
            self._client.session.mount(scheme, Adapter(place.registry, plain=plain))
        # oras would take a registry without a dot for a part of the name.
        self._container = Container(place.name)
        self._container.registry = place.registry
        with self._explained():
            # A registry that is not there is found out soon.
            first = self._client.session.get(f"{self._client.prefix}://{place.registry}/v2/", timeout=10)
            # The credentials are those of docker, podman and skopeo: ~/.docker/config.json.
            self._client.auth.load_configs(self._container)
            if wants_password(first):
                self._client.send_password()

    def push(self, image: Image, version: str) -> bool:
        """Upload an image under a tag or its digest. Return whether the registry lists it as a referrer by itself."""
        for blob in image.blobs:
            with self._explained(), tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "blob"
                file.write_bytes(blob.content)
                self._check(self._client.upload_blob(str(file), self._container, blob.descriptor))
        return "OCI-Subject" in self._put(image.manifest, version).headers

    def attach(self, subject: Image, kind: str, name: str, content: bytes) -> None:
        """Upload a file about an image, as its referrer."""
        added = oci_image.referrer(subject.manifest, kind, name, content)
        if self.push(added, added.manifest.digest):
            return
        # Registries of before 2024 keep no list of referrers, so the specification names a tag for it.
        tag = subject.manifest.digest.replace(":", "-")
        found = self._get(f"manifests/{tag}", oci_image.INDEX_TYPE, missing=b"{}")
        known = self._json_object(found).get("manifests", [])
        if not isinstance(known, list) or not all(isinstance(each, dict) for each in known):
            raise RegistryError(f"{self._place.registry}: {tag} must be a list of manifests, but it is something else")
        self._put(oci_image.index_of(known, added, kind), tag)

    def manifest(self, version: str) -> tuple[dict[str, Any], str]:
        """Return the manifest of an image, and its digest."""
        content = self._get(f"manifests/{version}", f"{oci_image.MANIFEST_TYPE}, {oci_image.INDEX_TYPE}")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if version.startswith("sha256:") and digest != version:
            raise RegistryError(f"{self._place.registry}: sent a manifest with the digest {digest}, not {version}")
        return self._json_object(content), digest

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        """Return a blob, whose digest is checked."""
        digest, size = descriptor.get("digest"), descriptor.get("size")
        is_known = isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
        if not is_known or not isinstance(size, int) or not 0 <= size <= MAX_BUNDLE_BYTES:
            raise RegistryError(
                f"{self._place.registry}: the manifest names a layer {quoted(digest)} of {quoted(size)} bytes; a layer "
                f"must have a SHA-256 digest and at most {MAX_BUNDLE_BYTES} bytes; push it again with mnist-export push"
            )
        content = self._get(f"blobs/{digest}", "*/*", limit=size)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise RegistryError(f"{self._place.registry}: sent other bytes than those of {digest}")
        return content

    def _json_object(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{self._place.registry}: sent a manifest that is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise RegistryError(f"{self._place.registry}: sent a manifest that is no JSON object")
        return found

    def _put(self, manifest: Blob, version: str) -> Any:
        with self._explained():
            url = f"{self._url}/manifests/{version}"
            headers = {"Content-Type": manifest.media_type}
            return self._check(self._client.do_request(url, "PUT", data=manifest.content, headers=headers))

    def _get(self, path: str, accept: str, *, limit: int = MAX_MANIFEST_BYTES, missing: bytes | None = None) -> bytes:
        with self._explained():
            found = self._client.do_request(f"{self._url}/{path}", headers={"Accept": accept}, stream=True)
            with found:
                if missing is not None and found.status_code == 404:
                    return missing
                self._check(found)
                content = bytearray()
                for piece in found.iter_content(1 << 16):
                    content += piece
                    if len(content) > limit:
                        raise RegistryError(f"{self._place.registry}: {path} has more than {limit} bytes")
                return bytes(content)

    @property
    def _url(self) -> str:
        return f"{self._client.prefix}://{self._place.registry}/v2/{self._place.name}"

    def _check(self, response: Any) -> Any:
        if response.status_code not in (200, 201, 202):
            text = response.content[:1000].decode(errors="replace")
            reason = printable(" ".join(text.split())[:200])
            raise RegistryError(f"{self._place.registry}/{self._place.name}: status {response.status_code}: {reason}")
        return response

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:  # requests, urllib3 and oras have exceptions without a common base.
            raise RegistryError(f"{self._place.registry}: cannot be used: {printable(_reason(error))}") from error


def _reason(error: Exception) -> str:
    """Return why a request failed. If it is an OSError, the first error of its chain says so in the fewest words."""
    first: BaseException = error
    while isinstance(error, OSError) and (earlier := first.__cause__ or first.__context__):
        first = earlier
    return first.strerror if isinstance(first, OSError) and first.strerror else first_line(error)


def push(folder: Path, place: ImageReference, sbom: Path | None = None, *, plain: bool = False) -> str:
    """Upload the bundle in ``folder`` and what belongs to it. Return the digest of the image.

    Its signature and its SBOM also become referrers of the image, where other tools look for them.

    Raises:
        BundleError: the bundle is damaged.
        RegistryError: the registry did not take it.
        OSError: the SBOM cannot be read.
    """
    found = bundle.read(folder)
    image = oci_image.image_of(found)
    bill = sbom.read_bytes() if sbom else None
    remote = Remote(place, plain=plain)
    remote.push(image, place.version)
    if (folder / bundle.SIGNATURE).exists():
        content = (folder / bundle.SIGNATURE).read_bytes()
        remote.attach(image, oci_image.SIGNATURE_TYPE, bundle.SIGNATURE, content)
    if bill is not None:
        remote.attach(image, oci_image.SBOM_TYPE, "sbom.cdx.json", bill)
    return image.manifest.digest


def pull(
    place: ImageReference, repository: Path, trust: Trust | None = None, *, plain: bool = False
) -> tuple[Bundle, str]:
    """Download a bundle, check it, and publish it under its own version. Return it, and the digest of the image.

    Raises:
        BundleError: the image holds no bundle, nobody trusted signed it, or the repository has another such version.
        RegistryError: the registry did not give it.
    """
    remote = Remote(place, plain=plain)
    manifest, digest = remote.manifest(place.version)
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers or not isinstance(layers[-1], dict):
        raise BundleError(f"oci://{place.registry}/{place.name}: is no image with layers")
    # Those before it belong to a base image.
    layer = remote.blob(layers[-1])
    with staging_folder(repository) as staging:
        name, version = oci_image.unpack(layer, staging)
        found = load_folder(staging, trust).bundle
        _check_place(found, name, version, place)
        target = repository / name / str(version)
        if target.exists() or not _published(found, target):
            _complete(target, found, trust)
    return bundle.read(target), digest


def _check_place(found: Bundle, name: str, version: int, place: ImageReference) -> None:
    """Check that an image holds what the path of its folder says, and no other files than those of the bundle."""
    source, manifest = f"oci://{place.registry}/{place.name}", found.manifest
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(
            f"{source}: its folder /{oci_image.ROOT}/{name}/{version} must hold that version of that model, but it "
            f"holds {manifest.name} version {manifest.version}; push the bundle again with mnist-export push"
        )
    known = {bundle.MANIFEST, bundle.SIGNATURE, *manifest.files}
    if more := sorted(path.name for path in found.folder.iterdir() if path.name not in known):
        raise BundleError(
            f"{source}: has {more[0]}, which its manifest does not name; push the bundle again with mnist-export push"
        )


def _published(found: Bundle, target: Path) -> bool:
    """Publish a bundle from its staging folder. Return False if another command was faster."""
    models = target.parent
    models.mkdir(exist_ok=True)
    # The configuration has the number of classes, which is that of the newest version.
    if not (models / triton.CONFIG).exists() or found.manifest.version > max(disk.versions(models), default=0):
        triton.write(models, found.manifest)
    return moved(found.folder, target)


def _complete(target: Path, found: Bundle, trust: Trust | None) -> None:
    """Give the published bundle in ``target`` the signature of the same bundle, ``found``, if nobody trusted signed it.

    Raises:
        BundleError: it is damaged, or it is another bundle.
    """
    way_out = f"remove {target} and pull again"
    try:
        is_same = bundle.read(target).digest == found.digest
    except BundleError as error:
        raise BundleError(f"{str(error).removesuffix(f'; {bundle.RENEW}')}; {way_out}") from error
    if not is_same:
        raise BundleError(f"{target} is another bundle already; name another --repository")
    if trust is None or _is_trusted(target, trust):
        return
    # This signature was checked with the staged files.
    write_atomically(target / bundle.SIGNATURE, (found.folder / bundle.SIGNATURE).read_bytes())
    try:
        trust.check(target)
    except BundleError as error:
        raise BundleError(f"{error}; {way_out}") from error


def _is_trusted(folder: Path, trust: Trust) -> bool:
    try:
        trust.check(folder)
    except BundleError:
        return False
    return True

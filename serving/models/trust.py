"""Check who signed a bundle. With ``--trust``, only bundles with a trusted signature are loaded.

The signature is that of the OpenSSF's package model-signing: ``model.sig`` in the bundle, which names the SHA-256 of
every other file there. ``model_signing verify`` accepts the same bundles. The package is imported only here, and only
if there is somebody to trust.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from serving import files
from serving.errors import BundleError, SettingsError
from serving.models import disk
from serving.models.bundle import MAX_BUNDLE_BYTES, SIGNATURE

SIGSTORE = "sigstore:"
# A message of model-signing is a list as Python writes it, so a quote may follow a backslash.
DIFFERENCES = re.compile(r"Hash mismatch for \\?'[^'\\]+|(?:Extra|Missing) files[^:]*: [^\"'\\\]]+")
# A signature has 6 kB, and a certificate has 2 kB.
MAX_SIGNATURE_BYTES = MAX_KEY_BYTES = 1_000_000

MISSING = "needs the package model-signing; install it with: pip install model-signing pyopenssl"
RULE = "must be a file with a public key or a certificate in PEM, or sigstore:IDENTITY@ISSUER"


class Trust:
    """Those whose signatures count. Each is a public key, a certificate, or an identity of Sigstore.

    Args:
        setting: files in PEM, or ``sigstore:IDENTITY@ISSUER``, separated by commas.

    Raises:
        SettingsError: the setting names nobody, the package model-signing is missing, or a file is no public key and no
            certificate.
    """

    def __init__(self, setting: str) -> None:
        try:
            import model_signing  # noqa: F401
        except ImportError as error:
            raise SettingsError(f"--trust {setting}: {MISSING}") from error
        self._names = [name.strip() for name in setting.split(",") if name.strip()]
        if not self._names:
            raise SettingsError(f"--trust {setting}: holds no entry; leave the setting out instead")
        for name in self._names:
            try:
                _configured(name)
            except SettingsError:
                raise
            except Exception as error:  # cryptography has an exception for each kind of malformed file.
                rule = "Sigstore needs a network" if name.startswith(SIGSTORE) else RULE
                raise SettingsError(f"--trust {name}: {reason_of(error)}: {rule}") from error

    @classmethod
    def of(cls, setting: str) -> Trust | None:
        """Return the trust of the setting, or None if it is empty: then every bundle is loaded."""
        return cls(setting) if setting else None

    def check(self, folder: Path) -> dict[str, str]:
        """Check that somebody trusted signed exactly the files in ``folder``, and return the SHA-256 of each by name.

        Another program may change the files at any time. So compare what you use with these digests.

        Raises:
            BundleError: nobody trusted did.
        """
        _check_bounds(folder)
        reasons = []
        for name in self._names:
            try:
                # One copy of the signature is verified, and its digests are returned.
                content, digests = _read(folder / SIGNATURE)
                with tempfile.NamedTemporaryFile() as copy:
                    copy.write(content)
                    copy.flush()
                    # A configuration remembers the paths that it left out of other bundles, so each bundle gets one.
                    _configured(name).verify(folder, Path(copy.name))
                return digests
            except Exception as error:  # A hostile signature can be malformed in more ways than the package lists.
                reasons.append(reason_of(error))
        raise BundleError(f"{folder} is not what a trusted key signed: {'; '.join(dict.fromkeys(reasons))}")


def _read(path: Path) -> tuple[bytes, dict[str, str]]:
    """Return a signature in its plainest form, and the SHA-256 of each file that it names.

    Readers of JSON differ in what they do with a key that comes twice or is written in another way. In the plainest
    form all readers see the same.
    """
    found = json.loads(files.read(path, MAX_SIGNATURE_BYTES))
    envelope = found["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    plain = {name: found[name] for name in ("mediaType", "verificationMaterial")}
    plain["dsseEnvelope"] = {name: envelope[name] for name in ("payloadType", "signatures")}
    plain["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    resources = json.loads(payload)["predicate"]["resources"]
    return json.dumps(plain).encode(), {each["name"]: each["digest"] for each in resources}


def hashing_config() -> Any:
    """Return the configuration of model-signing for the files that a signature is about: all but the signature."""
    from model_signing import hashing

    # By default files of git would be left out: then somebody could add them.
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _configured(name: str) -> Any:
    """Return a verifier of model-signing for one entry of the setting. It reads the key from its file."""
    from model_signing import verifying

    config = verifying.Config().set_hashing_config(hashing_config())
    if name.startswith(SIGSTORE):
        identity, _, issuer = name.removeprefix(SIGSTORE).rpartition("@")
        if not (identity and issuer):
            raise SettingsError(f"--trust {name}: {RULE}")
        return config.use_sigstore_verifier(identity=identity, oidc_issuer=issuer)
    try:
        content = files.read(Path(name), MAX_KEY_BYTES)
    except OSError as error:
        raise SettingsError(f"--trust {name}: {error.strerror}: {RULE}") from error
    if b"PRIVATE KEY" in content:
        raise SettingsError(f"--trust {name}: is a private key: give the public key that belongs to it")
    if b"BEGIN CERTIFICATE" in content:
        return config.use_certificate_verifier(certificate_chain=[Path(name)])
    return config.use_elliptic_key_verifier(public_key=Path(name))


def _check_bounds(folder: Path) -> None:
    """Check that there is a signature, and that reading the folder takes bounded time and memory."""
    try:
        size = files.size_of(folder / SIGNATURE)
    except OSError:
        raise BundleError(
            f"{folder} has no signature {SIGNATURE}, and --trust accepts signed bundles only: "
            "sign it with mnist-export --sign"
        ) from None
    if size > MAX_SIGNATURE_BYTES:
        raise BundleError(f"{folder / SIGNATURE} has {size} bytes: must be at most {MAX_SIGNATURE_BYTES}")
    count = total = 0
    for place, folders, names in os.walk(folder):
        count += len(folders) + len(names)
        if count > disk.MAX_FILES:
            raise BundleError(f"{folder} has more than {disk.MAX_FILES} files")
        total += sum((Path(place) / name).lstat().st_size for name in names)
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"{folder} has files of {total} bytes together: must be at most {MAX_BUNDLE_BYTES}")


def reason_of(error: Exception) -> str:
    """Return the reason in an exception of model-signing, as one line."""
    if isinstance(error, AttributeError):
        return "it is not a key on an elliptic curve"
    # Which files differ is what helps. Their digests, as Python writes bytes, would fill the line.
    if differences := DIFFERENCES.findall(str(error)):
        return re.sub(r"[\\']", "", "; ".join(differences))[:300]
    # The exception for a wrong signature has no text.
    lines = str(error).splitlines() or [f"the signature is not valid ({type(error).__name__})"]
    return f"{lines[0]:.300}".strip()

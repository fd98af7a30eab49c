"""Sign a bundle with the OpenSSF's package model-signing: ``model.sig`` beside the manifest, about all other files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from export.folder import ExportError
from serving.models.bundle import SIGNATURE
from serving.models.trust import MISSING, hashing_config, reason_of
from training import checkpoint

SIGSTORE = "sigstore"
KEY_RULE = (
    "must be a file with a private key in PEM on the curve P-256, P-384 or P-521, with --sign-password if it is "
    "encrypted, or the word sigstore"
)


class Signer:
    """Signs bundles with one key.

    Args:
        key: a file with a private key on an elliptic curve, in PEM; or ``sigstore``, which asks who you are.
        certificate: a file in PEM with the certificate of the key, and after it those that lead to a trusted one.
        password: that of the key.

    Raises:
        ExportError: the package model-signing is missing, or the key or the certificate cannot be used.
    """

    def __init__(self, key: str, certificate: Path | None = None, password: str | None = None) -> None:
        self.key = key
        try:
            from model_signing import signing
        except ImportError as error:
            raise ExportError(f"--sign {key}: {MISSING}") from error
        config = signing.Config()
        config.set_hashing_config(hashing_config())
        try:
            self._config: Any = _configured(config, key, certificate, password)
        except Exception as error:  # cryptography has an exception for each kind of malformed file.
            rule = "Sigstore needs a network" if key == SIGSTORE else KEY_RULE
            raise ExportError(f"--sign {key}: {reason_of(error)}: {rule}") from error

    def __call__(self, folder: Path) -> None:
        """Write the signature of all files in ``folder``. One that is there is replaced.

        Raises:
            ExportError: Sigstore cannot be reached, or does not know who signs.
            OSError: a file could not be read or written.
        """
        with tempfile.TemporaryDirectory() as outside:
            written = Path(outside) / SIGNATURE
            try:
                self._config.sign(folder, written)
            except OSError:
                raise
            except Exception as error:
                raise ExportError(f"--sign {self.key}: {reason_of(error)}") from error
            checkpoint.write_atomically(folder / SIGNATURE, written.read_bytes())


def _configured(config: Any, key: str, certificate: Path | None, password: str | None) -> Any:
    if key == SIGSTORE:
        return config.use_sigstore_signer(use_ambient_credentials=True)
    if certificate is None:
        # The package says that a password is text, but cryptography needs bytes.
        return config.use_elliptic_key_signer(private_key=Path(key), password=password.encode() if password else None)
    return config.use_certificate_signer(
        private_key=Path(key), signing_certificate=certificate, certificate_chain=[certificate]
    )

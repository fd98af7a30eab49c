"""An authority for tests, which issues certificates, and the clients that trust it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass
class Authority:
    """A certificate authority and a folder for its files."""

    folder: Path

    def __post_init__(self) -> None:
        self.ca = trustme.CA()
        self.file = self.folder / "ca.crt"
        self.ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Write a new certificate and its key to files of this name, and return their paths."""
        issued = self.ca.issue_cert(*(identities or ("localhost", "127.0.0.1")))
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    def flags(self, name: str = "server") -> list[object]:
        """Return flags of mnist-serve for a new certificate."""
        certificate, key = self.issue(name)
        return ["--tls-cert", certificate, "--tls-key", key]

    def trusted(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, and that may have a certificate of its own."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate:
            context.load_cert_chain(*certificate)
        return context

"""Keys, certificates and signatures for tests. Without the package model-signing these tests are skipped."""

from __future__ import annotations

import datetime
from pathlib import Path

from tests.support import missing

try:
    import model_signing
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
except ImportError:
    model_signing = None


def needs_model_signing():
    if model_signing is None:
        missing("the package model-signing")


def _write(path, key, password=None):
    kind = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = path.with_suffix(".pem"), path.with_suffix(".pub")
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind),
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def key_pair(path: Path, password: bytes | None = None, curve: str = "SECP256R1"):
    """Write a private and a public key. Return their paths."""
    return _write(path, ec.generate_private_key(getattr(ec, curve)()), password)


def rsa_pair(path: Path):
    return _write(path, rsa.generate_private_key(65537, 2048))


def certified_key(folder: Path):
    """Write a key, its certificate and that of its authority. Return the paths of the three."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "signer")]
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = []
    for name, key, is_authority in ((names[0], authority, True), (names[1], own, False)):
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=is_authority, crl_sign=False, decipher_only=False, **usage
                ),
                critical=True,
            )
            .sign(authority, hashes.SHA256())
        )
        path = folder / f"{'authority' if is_authority else 'signer'}.crt"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.append(path)
    private, _ = _write(folder / "certified", own)
    return private, made[1], made[0]

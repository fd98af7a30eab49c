"""The files of the certificate: which are rejected, and when they are read again."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from serving.errors import SettingsError
from serving.settings import Settings
from serving.tls import Credentials


def credentials(certificate, key="", client_ca=""):
    return Credentials(Settings(tls_cert=str(certificate), tls_key=str(key), tls_client_ca=str(client_ca)))


def test_settings_have_the_contents_and_a_context_for_them(authority):
    certificate, key = authority.issue("contents")
    found = credentials(certificate, key, authority.file)
    assert found.pem == (certificate.read_bytes(), key.read_bytes(), authority.file.read_bytes())
    ciphers = [cipher["name"] for cipher in found.context.get_ciphers()]
    assert ciphers
    assert all(
        name.startswith(("TLS_", "ECDHE-")) and "CBC" not in name and "-SHA" not in name[:-6] for name in ciphers
    )
    assert Credentials.of(Settings()) is None


def test_key_may_be_in_the_file_of_the_certificate(authority, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in authority.issue("both")))
    assert credentials(both).pem.key == both.read_bytes()


def test_file_that_cannot_be_used_is_named_with_the_reason(authority, tmp_path):
    certificate, key = authority.issue("used")
    other, _ = authority.issue("other")
    nothing, text, encrypted = tmp_path / "nothing", tmp_path / "text", tmp_path / "encrypted"
    text.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    damaged, of_another_kind = tmp_path / "damaged", tmp_path / "of_another_kind"
    damaged.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    of_another_kind.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    encrypted.write_bytes(load_pem_private_key(key.read_bytes(), None).private_bytes(*form))
    for files, message in [
        ((nothing, key), f"--tls-cert {nothing}: cannot be read: No such file or directory$"),
        ((tmp_path, key), f"--tls-cert {tmp_path}: cannot be read: .*directory"),
        ((certificate, nothing), f"--tls-key {nothing}: cannot be read"),
        ((certificate, key, nothing), f"--tls-client-ca {nothing}: cannot be read"),
        ((key, key), f"--tls-cert {key}: holds no certificate"),
        ((certificate, certificate), "holds no private key"),
        ((certificate,), f"--tls-cert {certificate}: holds no private key in PEM; name .* with --tls-key"),
        (
            (other, key),
            f"--tls-key {key}: is not the key of the certificate in --tls-cert {other}",
        ),
        ((certificate, of_another_kind), f"--tls-key {of_another_kind}: is not the key of the certificate in"),
        ((text, key), f"--tls-cert {text}: cannot be used: its PEM is damaged$"),
        ((certificate, damaged), f"--tls-key {damaged}: cannot be used: its PEM is damaged$"),
        ((certificate, key, text), f"--tls-client-ca {text}: cannot be used: its PEM is damaged$"),
        ((certificate, encrypted), f"--tls-key {encrypted}: is encrypted"),
    ]:
        with pytest.raises(SettingsError, match=message) as raised:
            credentials(*files)
        assert "\n" not in str(raised.value)


def test_settings_that_need_another_one_are_rejected():
    for given, message in [
        ({"tls_key": "a"}, "--tls-key a: needs --tls-cert"),
        ({"tls_client_ca": "a"}, "--tls-client-ca a: needs --tls-cert"),
        ({"tls_cert": "a", "port": -1, "uds": "b"}, "--tls-cert a: needs a port"),
        ({"port": -1}, "--port -1: needs --uds or --fd"),
        ({"port": -2}, "--port -2"),
        ({"fd": "a"}, "--fd a: must be numbers"),
        ({"fd": "3,"}, "--fd 3,: must be numbers"),
        ({"fd": "3,4,03"}, "--fd 3,4,03: must name each descriptor once"),
    ]:
        with pytest.raises(SettingsError, match=message):
            Settings(**given)


def is_renewed(credentials):
    """Look at the files, and return whether they were read again."""
    former = credentials.context
    credentials.look()
    return credentials.context is not former


def test_certificate_and_key_may_be_replaced_in_either_order(authority, caplog):
    certificate, key = authority.issue("replaced")
    found = credentials(certificate, key)
    context = found.context
    assert not is_renewed(found)
    for order in (certificate, key), (key, certificate):
        fresh = dict(zip((certificate, key), (path.read_bytes() for path in authority.issue("fresh")), strict=True))
        for number, path in enumerate(order):
            (path.parent / "new").write_bytes(fresh[path])
            (path.parent / "new").replace(path)
            assert is_renewed(found) == (number == 1)
            assert not is_renewed(found)
        assert found.pem.certificate == fresh[certificate]
        assert found.context is not context
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    # One line for each new reason, not one for each look.
    assert len(errors) == 2
    assert all("the former certificate stays in use" in line and "is not the key" in line for line in errors)


def test_file_that_became_a_fifo_is_not_read(authority):
    certificate, key = authority.issue("fifo")
    found = credentials(certificate, key)
    former = found.pem
    certificate.rename(certificate.with_suffix(".away"))
    os.mkfifo(certificate)
    assert (is_renewed(found), found.pem) == (False, former)


def test_removed_file_keeps_the_former_contents(authority):
    certificate, key = authority.issue("removed")
    found = credentials(certificate, key)
    former = found.pem
    certificate.rename(certificate.with_suffix(".away"))
    assert (is_renewed(found), found.pem) == (False, former)
    certificate.with_suffix(".away").rename(certificate)
    os.utime(certificate)
    assert (is_renewed(found), found.pem) == (True, former)


def test_key_that_everybody_can_read_gets_a_warning(authority, caplog):
    certificate, key = authority.issue("readable")
    credentials(certificate, key)
    assert not caplog.records
    key.chmod(0o644)
    credentials(certificate, key)
    [record] = caplog.records
    assert f"--tls-key {key}: every user of this machine can read this key; run chmod 600 {key}" in record.getMessage()

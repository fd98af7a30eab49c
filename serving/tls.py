"""The certificate of the service and its key: read from files, and read again when the files change."""

from __future__ import annotations

import codecs
import logging
import ssl
import stat
from pathlib import Path
from typing import NamedTuple, NoReturn

from serving import files
from serving.errors import SettingsError
from serving.file_version import FileVersion
from serving.settings import Settings, flag

# The settings that name the files.
FILES = ("tls_cert", "tls_key", "tls_client_ca")
# The cipher suites of TLS 1.2: those with forward secrecy and authenticated encryption. TLS 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# OpenSSL's reasons if a key belongs to another certificate: one with a key of the same kind, or of another kind.
MISMATCHES = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
# Files that change while they are read are read again, at most this many times in all.
MAX_READS = 5

log = logging.getLogger("serving")


class Pem(NamedTuple):
    """The contents of the files, in PEM."""

    certificate: bytes
    """The certificate of the service, followed by those of its issuers."""
    key: bytes
    client_ca: bytes
    """The certificates of the issuers of client certificates; empty if clients need none."""


class Credentials:
    """What the service proves its identity with, and which clients it trusts.

    Attributes:
        pem: the contents of the files.
        context: the same for the module ``ssl``. It is a new object whenever the files have changed.

    Raises:
        SettingsError: a file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        given = {name: getattr(settings, name) for name in FILES}
        # One file may hold both, as for HAProxy.
        given["tls_key"] = given["tls_key"] or given["tls_cert"]
        self._paths = {name: Path(path) for name, path in given.items() if path}
        self._problem = ""
        self._read()
        self._warn_of_readable_key()

    @classmethod
    def of(cls, settings: Settings) -> Credentials | None:
        """Return the credentials of a service, or None if it does not use TLS."""
        return cls(settings) if settings.tls_cert else None

    def look(self) -> None:
        """Read the files again if one of them has changed.

        If a file cannot be used, the former contents stay in use and the reason is logged. So it does not matter in
        which order the certificate and the key are replaced. This call may wait for a disk.
        """
        problem = ""
        try:
            if self._current_versions() != self._versions:
                # To open a FIFO could take for ever.
                for path in self._paths.values():
                    files.check_regular(path, path.stat())
                self._read()
                log.info("%s: read again", self._described("tls_cert"))
                self._warn_of_readable_key()
        except (OSError, SettingsError) as error:
            problem = str(error)
            if problem != self._problem:
                log.error("the former certificate stays in use: %s", problem)
        self._problem = problem

    def _read(self) -> None:
        for _ in range(MAX_READS):
            try:
                versions = self._current_versions()
                contents = {name: self._content(name) for name in self._paths}
                context = self._new_context(contents)
                if versions != self._current_versions():
                    continue
            except OSError as error:
                raise SettingsError(
                    f"{self._described(self._named_in(error))}: cannot be read: {error.strerror or error}"
                ) from error
            self.pem = Pem(contents["tls_cert"], contents["tls_key"], contents.get("tls_client_ca", b""))
            self.context, self._versions = context, versions
            return
        raise SettingsError(f"{self._described('tls_cert')}: it changes while it is read; try again")

    def _content(self, name: str) -> bytes:
        # OpenSSL reads over the byte order mark that editors of Windows write. gRPC does not.
        content = self._paths[name].read_bytes().removeprefix(codecs.BOM_UTF8)
        what, mark = ("private key", b"PRIVATE KEY-----") if name == "tls_key" else ("certificate", b"CERTIFICATE-----")
        if mark not in content:
            is_shared = name == "tls_key" and self._paths["tls_cert"] == self._paths["tls_key"]
            way_out = "name the file of the key with --tls-key" if is_shared else "other formats are not read"
            raise SettingsError(f"{self._described(name)}: holds no {what} in PEM; {way_out}")
        return content

    def _new_context(self, contents: dict[str, bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        # Otherwise a client of TLS 1.2 could ask for one costly handshake after the other on its connection.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._paths["tls_cert"], self._paths["tls_key"], self._reject_encrypted_key)
        except ssl.SSLError as error:
            if error.reason in MISMATCHES:
                owner = self._described("tls_cert")
                raise SettingsError(
                    f"{self._described('tls_key')}: is not the key of the certificate in {owner}, "
                    "which must be the first certificate in its file"
                ) from error
            # Without a reason, one of the two files is damaged. OpenSSL does not say which.
            name = "tls_key" if not error.reason and _holds_certificates(self._paths["tls_cert"]) else "tls_cert"
            raise SettingsError(f"{self._described(name)}: cannot be used: {_reason(error)}") from error
        if "tls_client_ca" in contents:
            context.verify_mode = ssl.CERT_REQUIRED
            # The file may name an intermediate issuer alone. Then its issuer does not count.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            try:
                context.load_verify_locations(self._paths["tls_client_ca"])
            except ssl.SSLError as error:
                raise SettingsError(f"{self._described('tls_client_ca')}: cannot be used: {_reason(error)}") from error
        return context

    def _reject_encrypted_key(self) -> NoReturn:
        # Without this function, OpenSSL would ask for the passphrase at the terminal.
        raise SettingsError(
            f"{self._described('tls_key')}: is encrypted; write it without a passphrase (openssl pkey), "
            "readable by the user of the service only"
        )

    def _current_versions(self) -> list[FileVersion]:
        return [FileVersion.of(path.stat()) for path in self._paths.values()]

    def _warn_of_readable_key(self) -> None:
        path = self._paths["tls_key"]
        if path.stat().st_mode & stat.S_IROTH:
            log.warning(
                "%s: every user of this machine can read this key; run chmod 600 %s", self._described("tls_key"), path
            )

    def _described(self, name: str) -> str:
        option = "tls_cert" if self._paths[name] == self._paths["tls_cert"] else name
        return f"{flag(option)} {self._paths[name]}"

    def _named_in(self, error: OSError) -> str:
        return next((name for name, path in self._paths.items() if str(path) == str(error.filename)), "tls_cert")


def _holds_certificates(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _reason(error: ssl.SSLError) -> str:
    return error.reason.replace("_", " ").lower() if error.reason else "its PEM is damaged"

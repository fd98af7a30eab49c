"""API keys: who may predict, who may load and unload."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from serving.settings import Settings, SettingsError, flag

Connection = ASGIConnection[Any, Any, Any, Any]


class Keys:
    """The keys of a service. An administrator's key also predicts.

    Raises:
        SettingsError: a key file cannot be read or holds no key.
    """

    def __init__(self, settings: Settings) -> None:
        self.admin = _read(settings, "admin_keys")
        self.predict = _read(settings, "predict_keys")
        if self.predict:
            self.predict |= self.admin


def needs_prediction_key(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard: open while no key for predictions is configured."""
    keys: Keys = connection.app.state.service.keys
    if keys.predict and not _holds(connection, keys.predict):
        _refuse()


def needs_admin_key(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard: closed while no administrator's key is configured."""
    keys: Keys = connection.app.state.service.keys
    if not keys.admin:
        raise PermissionDeniedException("administration is off: give the service an administrator's key (--admin-keys)")
    if not _holds(connection, keys.admin):
        _refuse()


def _refuse() -> None:
    raise NotAuthorizedException(
        "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _holds(connection: Connection, keys: Iterable[bytes]) -> bool:
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = connection.headers.get("x-api-key", "")
    digest = _digest(given.strip())
    # Every key is compared, each in constant time: how long it takes tells nothing.
    return sum(hmac.compare_digest(digest, key) for key in keys) > 0


def _read(settings: Settings, name: str) -> set[bytes]:
    texts = getattr(settings, name).split(",")
    file = getattr(settings, f"{name}_file")
    if file:
        try:
            lines = Path(file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{flag(name)}-file {file}: cannot be read: {error}") from error
        given = [line for line in lines if line.strip() and not line.startswith("#")]
        if not given:
            raise SettingsError(f"{flag(name)}-file {file}: holds no key; write one a line")
        texts += given
    return {_digest(text.strip()) for text in texts if text.strip()}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

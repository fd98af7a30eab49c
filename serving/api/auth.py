"""API keys: who may predict, who may load and unload."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from litestar.exceptions import NotAuthorizedException, PermissionDeniedException

from serving.api.http import AnyRequest
from serving.errors import SettingsError
from serving.settings import Settings, flag


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


# Called by the handlers, not declared as guards: for each guard the framework copies the whole handler
# at every request, which takes half as long as the model.


def check_prediction_key(request: AnyRequest) -> None:
    """Open while no key for predictions is configured.

    Raises:
        NotAuthorizedException: the request has none of the keys.
    """
    keys: Keys = request.scope["mnist.service"].keys  # type: ignore[typeddict-item]
    if keys.predict and not _holds(request, keys.predict):
        _refuse()


def check_admin_key(request: AnyRequest) -> None:
    """Closed while no administrator's key is configured.

    Raises:
        PermissionDeniedException: none is.
        NotAuthorizedException: the request has none of the keys.
    """
    keys: Keys = request.scope["mnist.service"].keys  # type: ignore[typeddict-item]
    if not keys.admin:
        raise PermissionDeniedException("administration is off: give the service an administrator's key (--admin-keys)")
    if not _holds(request, keys.admin):
        _refuse()


def _refuse() -> None:
    raise NotAuthorizedException(
        "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _holds(request: AnyRequest, keys: Iterable[bytes]) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = request.headers.get("x-api-key", "")
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

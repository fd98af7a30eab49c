"""API keys: who may predict, and who may load and unload models."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from litestar.exceptions import NotAuthorizedException, PermissionDeniedException

from serving.errors import SettingsError
from serving.settings import Settings, flag

if TYPE_CHECKING:
    from serving.api.context import RequestContext


class Keys:
    """The API keys of a service, as digests. An admin key also allows predictions.

    Handlers call the two checks themselves. As guards of Litestar the checks would take half as long as the model,
    because Litestar copies the whole handler for each guard at every request.

    Raises:
        SettingsError: a key file cannot be read, or it holds no key.
    """

    def __init__(self, settings: Settings) -> None:
        self.admin = _read(settings, "admin_keys")
        self.prediction = _read(settings, "predict_keys")
        if self.prediction:
            self.prediction |= self.admin

    def check_prediction(self, context: RequestContext) -> None:
        """Check that the request may predict. Everybody may if no prediction key is configured.

        Raises:
            NotAuthorizedException: the request has none of the keys.
        """
        if self.prediction:
            _check(context, self.prediction)

    def check_admin(self, context: RequestContext) -> None:
        """Check that the request may load and unload models. Nobody may if no admin key is configured.

        Raises:
            PermissionDeniedException: no admin key is configured.
            NotAuthorizedException: the request has none of the keys.
        """
        if not self.admin:
            raise PermissionDeniedException("administration is off: start the service with an admin key (--admin-keys)")
        _check(context, self.admin)


def _check(context: RequestContext, keys: Iterable[bytes]) -> None:
    scheme, _, given = (context.header(b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        given = context.header(b"x-api-key") or ""
    digest = _digest(given.strip())
    # Compare with every key, each in constant time, so that the time taken reveals nothing about a key.
    if not sum(hmac.compare_digest(digest, key) for key in keys):
        raise NotAuthorizedException(
            "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _read(settings: Settings, name: str) -> set[bytes]:
    """Return the digests of the keys in the setting ``name`` and in its file."""
    texts = getattr(settings, name).split(",")
    file = getattr(settings, f"{name}_file")
    if file:
        try:
            lines = Path(file).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{flag(name)}-file {file}: cannot be read: {error}") from error
        given = [line for line in lines if line.strip() and not line.startswith("#")]
        if not given:
            raise SettingsError(f"{flag(name)}-file {file}: holds no key; write one key per line")
        texts += given
    return {_digest(text.strip()) for text in texts if text.strip()}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

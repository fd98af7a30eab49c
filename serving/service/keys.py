"""API keys: who may predict, who may send corrections, and who may load and unload models."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from serving import files
from serving.errors import ForbiddenError, NoKeyError, SettingsError
from serving.file_version import FileVersion
from serving.settings import Settings, flag

# Seconds between two looks at the key files.
LOOK_INTERVAL = 1.0
# The largest key file, and the longest key, in characters. A longer key would not fit into a header.
MAX_FILE, MAX_KEY = 1_000_000, 8_000
# Keys that one call may offer. A proxy may add one of its own to the client's.
MAX_OFFERED = 4

# Characters that no header can have.
_CONTROL = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")
_LINE_BREAK = re.compile(r"[\r\n]")
_COMMA_OR_LINE_BREAK = re.compile(r"[,\r\n]")
# A comment takes the rest of its line. A number sign within a key begins no comment.
_COMMENT = re.compile(r"(?:^|\s)#.*")

log = logging.getLogger("serving")


class Caller(Protocol):
    """The part of a call that this file reads."""

    @property
    def raw_headers(self) -> Iterable[tuple[bytes, bytes]]: ...


@dataclass
class KeyFile:
    """A file with one key per line, and the digests of its keys."""

    path: Path
    option: str
    """The setting that names the file, for messages."""
    digests: frozenset[bytes] = frozenset()
    version: FileVersion | None = None
    """None if the file is a pipe, which can be read only once."""
    problem: str = ""
    """Why the file could not be read again."""

    def read(self) -> None:
        """Read the keys.

        Raises:
            SettingsError: the file cannot be read, or it holds no key or one that no client can send. The former keys
                stay.
        """
        try:
            with io.TextIOWrapper(self._open(), encoding="utf-8") as file:
                # Get the version first: if the file changes while it is read, it is read again at the next look.
                status = os.fstat(file.fileno())
                text = file.read(MAX_FILE + 1)
                if len(text) > MAX_FILE:
                    raise ValueError(f"it has more than {MAX_FILE} characters")
                digests = digests_in(text, _LINE_BREAK)
        except OSError as error:
            raise SettingsError(f"{self.option} {self.path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise SettingsError(f"{self.option} {self.path}: cannot be read: {error}") from error
        if not digests:
            raise SettingsError(f"{self.option} {self.path}: holds no key; write one key per line")
        self.digests = digests
        if stat.S_ISREG(status.st_mode):
            self.version = FileVersion.of(status)
            if status.st_mode & stat.S_IROTH:
                log.warning(
                    "%s %s: every user of this machine can read this file; run chmod 600 %s",
                    *(self.option, self.path, self.path),
                )

    def _open(self) -> BinaryIO:
        # The file may be a pipe at first. One that takes the place of a regular file would never end.
        return self.path.open("rb") if self.version is None else files.open_regular(self.path)

    def read_if_changed(self) -> None:
        """Read the keys again if the file has changed. If it cannot be read, keep the former keys and log the reason.

        This is also done for a file that was removed, because an editor or a deployment may be about to replace it.
        """
        if self.version is None:
            return
        problem = ""
        try:
            if FileVersion.of(self.path.stat()) != self.version:
                self.read()
                count = len(self.digests)
                log.info("%s %s: read %d key%s again", self.option, self.path, count, "s" * (count != 1))
        except OSError as error:
            problem = f"{self.option} {self.path}: cannot be read: {error.strerror}"
        except SettingsError as error:
            problem = str(error)
        if problem and problem != self.problem:
            log.error("the former keys stay valid: %s", problem)
        self.problem = problem


class Keys:
    """The API keys of a service, as digests. An admin key allows all, and a feedback key also allows predictions.

    Handlers call the two checks themselves. As guards of Litestar the checks would take half as long as the model,
    because Litestar copies the whole handler for each guard at every request.

    Raises:
        SettingsError: a key file cannot be read, or it or a setting holds no key.
    """

    def __init__(self, settings: Settings) -> None:
        self._given: dict[str, frozenset[bytes]] = {}
        self._files: dict[str, KeyFile] = {}
        for name in ("admin_keys", "feedback_keys", "predict_keys"):
            self._given[name] = _given_keys(settings, name)
            if path := getattr(settings, f"{name}_file"):
                self._files[name] = file = KeyFile(Path(path), f"{flag(name)}-file")
                file.read()
        self._combine()

    @property
    def has_files(self) -> bool:
        """Whether there is a key file, which may change."""
        return bool(self._files)

    def look(self) -> None:
        """Read the key files again that have changed. This may wait for a disk."""
        for file in self._files.values():
            file.read_if_changed()
        self._combine()

    def _combine(self) -> None:
        files = {name: file.digests for name, file in self._files.items()}
        admin, feedback, prediction = (given | files.get(name, frozenset()) for name, given in self._given.items())
        self.admin = admin
        self.prediction = prediction | feedback | admin if prediction else prediction
        self.feedback = feedback | admin if feedback else self.prediction
        self._feedback_key = "feedback key" if feedback else "prediction key"

    def check_prediction(self, call: Caller) -> None:
        """Check that the call may predict. Everybody may if no prediction key is configured.

        Raises:
            NoKeyError: the call has none of the keys.
        """
        if self.prediction:
            _check(call, self.prediction, "prediction key")

    def check_feedback(self, call: Caller) -> None:
        """Check that the call may send corrections. Without a feedback key, whoever may predict may do so.

        Raises:
            NoKeyError: the call has none of the keys.
        """
        if self.feedback:
            _check(call, self.feedback, self._feedback_key)

    def check_admin(self, call: Caller) -> None:
        """Check that the call may change models and read what is stored. Nobody may if no admin key is configured.

        Raises:
            ForbiddenError: no admin key is configured.
            NoKeyError: the call has none of the keys.
        """
        if not self.admin:
            raise ForbiddenError("administration is off: start the service with --admin-keys-file FILE")
        _check(call, self.admin, "admin key")


def digests_in(text: str, separator: re.Pattern[str]) -> frozenset[bytes]:
    """Return the digests of the keys in a setting or a file, without comments, blank lines and byte order marks.

    Raises:
        ValueError: no client could send one of the keys.
    """
    keys = [_COMMENT.sub("", part.replace("\ufeff", "")).strip() for part in separator.split(text)]
    if any(len(key) > MAX_KEY or _CONTROL.search(key) for key in keys):
        raise ValueError(f"it has a key with a control character, or with more than {MAX_KEY} characters")
    return frozenset(_digest(key.encode("utf-8", "surrogateescape")) for key in keys if key)


def _given_keys(settings: Settings, name: str) -> frozenset[bytes]:
    text = getattr(settings, name)
    try:
        digests = digests_in(text, _COMMA_OR_LINE_BREAK)
    except ValueError as error:
        raise SettingsError(f"{flag(name)}: {error}") from error
    if text and not digests:
        raise SettingsError(f"{flag(name)}: holds no key; leave the setting out instead")
    return digests


def _check(call: Caller, keys: frozenset[bytes], kind: str) -> None:
    # The time of this look-up reveals nothing about a key, because nobody can choose how a digest begins. To compare
    # with each key in constant time would block the event loop for 20 ms with a full key file, for strangers too.
    offered = [_digest(key) for _, key in zip(range(MAX_OFFERED), _offered(call), strict=False)]
    if keys.isdisjoint(offered):
        raise NoKeyError(f"send a valid {kind} as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")


def _offered(call: Caller) -> Iterator[bytes]:
    """Yield the keys that a call offers. One right key is enough, because a proxy may add a key of its own."""
    for name, value in call.raw_headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

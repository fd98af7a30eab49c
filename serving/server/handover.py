"""Hand the settings and the names of the unloaded models from the supervisor to a worker."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from serving import tls
from serving.errors import SettingsError
from serving.settings import Settings, described

# The settings that name a file with keys or certificates.
FILES = ("predict_keys_file", "feedback_keys_file", "admin_keys_file", *tls.FILES)
# Files of this process only, for example /dev/fd/63 and /dev/stdin.
OWN_FILE = re.compile(r"/(dev|proc)/")
# The path of an inherited descriptor.
DESCRIPTOR = re.compile(r"/dev/fd/(\d+)")
# Largest number of bytes that are read from such a file.
MAX_KEYS = 1 << 20


def lasting(settings: Settings) -> Settings:
    """Return ``settings`` that are still valid in a process that starts later, in any working directory.

    A file that can be read only once, such as a pipe, becomes a file in memory.

    Raises:
        SettingsError: the path of a file of ``--trust`` has a comma.
    """
    changes: dict[str, Any] = {}
    for name in FILES:
        file = getattr(settings, name)
        if file:
            changes[name] = _lasting_file(file)
    if not settings.repository.is_absolute():
        changes["repository"] = settings.repository.absolute()
    trusted = [name.strip() for name in settings.trust.split(",")]
    changes["trust"] = ",".join(map(_lasting_entry, filter(None, trusted)))
    if settings.feedback:
        changes["feedback"] = str(Path(settings.feedback).absolute())
    if settings.state:
        changes["state"] = str(Path(settings.state).absolute())
    return replace(settings, **changes)


def _lasting_entry(name: str) -> str:
    """Return an entry of ``--trust``: a file, or what is no file, such as sigstore:IDENTITY."""
    is_file = os.path.exists(name)  # noqa: PTH110 (Path.exists raises an error for a long name, or without permission)
    entry = _lasting_file(name) if is_file else name
    if "," in entry:
        raise SettingsError(
            f"--trust {name}: its path {entry} must have no comma, which ends an entry; move the file to another folder"
        )
    return entry


def _lasting_file(file: str) -> str:
    try:
        if stat.S_ISREG(Path(file).stat().st_mode) and not OWN_FILE.match(file):
            return str(Path(file).absolute())
        with Path(file).open("rb") as source:
            content = source.read(MAX_KEYS)
    except OSError:
        return file  # The application reports the error.
    if not content.strip() and OWN_FILE.match(file):
        return file  # The application reports that it holds no key.
    return f"/dev/fd/{_file_in_memory(content)}"


def _file_in_memory(content: bytes) -> int:
    """Return the descriptor of a new file that has no path."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("keys")
    else:
        with TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def descriptors(settings: Settings) -> list[int]:
    """Return the descriptors that a worker must inherit: the descriptors of the files in memory."""
    files = [*(getattr(settings, name) for name in FILES), *settings.trust.split(",")]
    return [int(found[1]) for file in files if (found := DESCRIPTOR.fullmatch(file))]


def written(settings: Settings, unloaded: Collection[str]) -> bytes:
    """Return what the supervisor writes to the standard input of a new worker."""
    given = {name: getattr(settings, name) for name, _, _ in described()}
    return json.dumps({"settings": given, "unloaded": sorted(unloaded)}, default=str).encode()


def read() -> tuple[Settings, list[str]]:
    """Return the settings and the unloaded models from standard input, which is empty afterwards."""
    given = json.load(sys.stdin)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    settings = Settings(**{name: kind(given["settings"][name]) for name, kind, _ in described()})
    for descriptor in descriptors(settings):
        os.lseek(descriptor, 0, os.SEEK_SET)  # On some systems, opening /dev/fd/N only copies the descriptor.
        os.set_inheritable(descriptor, False)
    return settings, given["unloaded"]

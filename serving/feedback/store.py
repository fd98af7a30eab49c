"""The corrections of visitors, in a folder that mnist-train reads as a data set.

DIR/7/DIGEST.png             the picture
DIR/7/DIGEST.json            what is known about it: a Record
DIR/.disputed/7/DIGEST.png   a picture that got several labels; mnist-train passes over this folder

The digest is that of the 28x28 image. So pictures that look the same to the model are one correction.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from serving import shares
from serving.errors import InputTooLargeError, OverloadedError, SettingsError, StorageFullError
from serving.feedback.records import Answer, DisputedPicture, FeedbackReport, LabelCount, Outcome, Record
from serving.file_version import FolderVersion, sign
from serving.settings import Settings

DISPUTED, LOCK = ".disputed", ".lock"
# Only files with such names are counted and removed. The folder may also hold pictures of its owner.
FILE = re.compile(r"\.?([0-9a-f]{64})\.(?:png|json)(?:\.part|\.old)?")
# Folders that mnist-train would not take for a class: hidden ones, and those of a divided data set.
NO_FOLDER = re.compile(r"(?:\.|__).*|.*[/\\\0].*|train|training|val|valid|validation|test", re.IGNORECASE | re.DOTALL)
MAX_NAME_BYTES = 255
# Seconds between two attempts to get the lock, and how many disputed pictures a report lists.
RETRY, MAX_LISTED = 0.01, 1000
# The system's errors if a folder is read-only, belongs to others, or is a file or a link.
UNUSABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)

log = logging.getLogger("serving")


class _Compared(msgspec.Struct):
    """The part of a stored record that says whether the prediction was right."""

    label: str
    answer: Answer


@dataclass(slots=True, eq=False)
class _Entry:
    """The files of one picture with one label."""

    label: str
    digest: str
    is_disputed: bool
    files: list[Path] = field(default_factory=list)
    bytes: int = 0
    modified: int = 0

    @property
    def key(self) -> tuple[bool, str, str]:
        return self.is_disputed, self.label, self.digest

    @property
    def has_picture(self) -> bool:
        return any(path.name == f"{self.digest}.png" for path in self.files)


class Store:
    """The folder. Several processes may use it at the same time.

    Raises:
        SettingsError: files cannot be written there.
    """

    def __init__(self, settings: Settings) -> None:
        self.folder = Path(settings.feedback)
        self._max_bytes, self._max_files = settings.feedback_bytes, settings.feedback_files
        self._removes_oldest = settings.feedback_full == "oldest"
        self._known: tuple[FolderVersion, list[_Entry]] | None = None
        """What the last scan has found, with the changes of this process since."""
        try:
            # Handwriting of visitors is nobody else's business.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / LOCK).open("ab"):
                pass
        except OSError as error:
            raise SettingsError(
                f"--feedback {self.folder}: cannot be written: {error.strerror or error}; name another folder"
            ) from error

    def add(self, picture: bytes, record: Record, deadline: float) -> Outcome:
        """Store a picture with its record. A picture that now has several labels is set aside with all of them.

        Args:
            picture: a PNG.
            record: its label is a folder name; see :func:`is_folder_name`.
            deadline: in the time of ``time.monotonic``.

        Raises:
            InputTooLargeError: it is larger than all the space.
            StorageFullError: there is no space left, or the folder is read-only.
            OverloadedError: another process has not finished before the deadline.
            OSError: a file could not be written.
        """
        digest = hashlib.sha256(bytes(pixel for row in record.image for pixel in row)).hexdigest()
        # The picture comes last: without it, mnist-train ignores the rest.
        contents = {f"{digest}.json": msgspec.json.encode(record), f"{digest}.png": picture}
        size = sum(map(len, contents.values()))
        with self._explained(), self._locked(deadline) as lock:
            entries = self._current(lock)
            same = [entry for entry in entries if entry.digest == digest and entry.has_picture]
            if any(entry.label == record.label for entry in same):
                return "known"
            self._make_room(entries, digest, len(contents), size)
            sign(lock)
            folder = (self.folder / DISPUTED if same else self.folder) / record.label
            moves = {entry: self.folder / DISPUTED / entry.label for entry in same if not entry.is_disputed}
            for target in moves.values():
                _make_folder(target)
            # If the disk is full, the picture keeps the label that it has.
            _write(folder, contents)
            for entry, target in moves.items():
                _move(entry, target)
            new = _Entry(record.label, digest, bool(same), [folder / name for name in contents], size, time.time_ns())
            kept = [entry for entry in entries if entry.files and entry.key != new.key]
            self._known = self._version(lock), [*kept, new]
        return "disputed" if same else "stored"

    def report(self) -> FeedbackReport:
        """Return what the folder holds."""
        with self._explained():
            entries = self._entries()
        labels: dict[str, LabelCount] = {}
        disputed: dict[str, list[str]] = {}
        for entry in entries:
            if entry.is_disputed and entry.has_picture:
                disputed.setdefault(entry.digest, []).append(entry.label)
            elif entry.has_picture:
                count = labels.setdefault(entry.label, LabelCount())
                count.pictures += 1
                count.right += _was_right(self.folder / entry.label / f"{entry.digest}.json")
        return FeedbackReport(
            pictures=sum(count.pictures for count in labels.values()),
            files=sum(len(entry.files) for entry in entries),
            bytes=sum(entry.bytes for entry in entries),
            max_files=self._max_files,
            max_bytes=self._max_bytes,
            labels=dict(sorted(labels.items())),
            disputed_pictures=len(disputed),
            disputed=[DisputedPicture(digest, sorted(disputed[digest])) for digest in sorted(disputed)[:MAX_LISTED]],
        )

    def _make_room(self, entries: list[_Entry], digest: str, files: int, size: int) -> None:
        """Remove the oldest corrections of other pictures until there is room, or raise if that makes no room."""
        if size > self._max_bytes or files > self._max_files:
            raise InputTooLargeError(
                f"the picture takes {size} bytes in {files} files: must be at most {self._max_bytes} in "
                f"{self._max_files}; send a smaller picture"
            )
        files += sum(len(entry.files) for entry in entries)
        size += sum(entry.bytes for entry in entries)
        removable = [entry for entry in entries if self._removes_oldest and entry.digest != digest]
        least_files = files - sum(len(entry.files) for entry in removable)
        least_size = size - sum(entry.bytes for entry in removable)
        if least_files > self._max_files or least_size > self._max_bytes:
            raise StorageFullError(
                f"the corrections fill their space of {self._max_bytes} bytes in {self._max_files} files; "
                "the operator must move some away, or raise --feedback-bytes or --feedback-files"
            )
        for entry in removable:
            if files <= self._max_files and size <= self._max_bytes:
                return
            for path in entry.files:
                path.unlink(missing_ok=True)
            files, size = files - len(entry.files), size - entry.bytes
            entry.files, entry.bytes = [], 0

    def _current(self, lock: IO[bytes]) -> list[_Entry]:
        """Return what is stored, the oldest first. Scan only if others have changed the folder: it takes long."""
        version = self._version(lock)
        if not version.signature:
            sign(lock)
            version = self._version(lock)
        if self._known is None or self._known[0] != version or not version.signature:
            self._known = version, self._entries()
        return self._known[1]

    def _version(self, lock: IO[bytes]) -> FolderVersion:
        return FolderVersion.of([folder for folder, _ in self._class_folders()], lock)

    def _entries(self) -> list[_Entry]:
        """Return what is stored, the oldest first."""
        found: dict[tuple[bool, str, str], _Entry] = {}
        for folder, is_disputed in self._class_folders():
            for file in _scan(Path(folder.path)):
                if not (match := FILE.fullmatch(file.name)):
                    continue
                try:
                    status = file.stat(follow_symlinks=False)
                except FileNotFoundError:  # Another process has moved or removed it.
                    continue
                new = _Entry(folder.name, match[1], is_disputed)
                entry = found.setdefault(new.key, new)
                entry.files.append(Path(file.path))
                entry.bytes += status.st_size
                entry.modified = max(entry.modified, status.st_mtime_ns)
        return sorted(found.values(), key=lambda entry: entry.modified)

    def _class_folders(self) -> Iterator[tuple[os.DirEntry[str], bool]]:
        """Yield the folder of each class, and whether its pictures are disputed."""
        for root in (self.folder, self.folder / DISPUTED):
            for folder in _scan(root):
                if folder.is_dir(follow_symlinks=False):
                    yield folder, root != self.folder

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise StorageFullError instead of an OSError that says that a folder cannot be used."""
        try:
            yield
        except OSError as error:
            if error.filename is None:  # A full disk, for example. The log then says which.
                error.filename = str(self.folder)
            if error.errno not in UNUSABLE:
                raise
            reason = os.strerror(error.errno)
            log.error("corrections cannot be stored in %s: %s", error.filename or self.folder, reason)
            raise StorageFullError(
                f"corrections cannot be stored: {reason}; --feedback and the folders in it must be plain and writable"
            ) from error

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[IO[bytes]]:
        """Hold the lock of the folder. The system frees it when this process ends, however it ends."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a+b", buffering=0) as file:
            while True:
                try:
                    shares.lock(file.fileno(), Path(file.name))
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise OverloadedError from None
                    time.sleep(RETRY)
            yield file


def is_folder_name(label: str) -> bool:
    """Return whether a class can have a folder of its name that mnist-train takes for this class."""
    return bool(label) and len(label.encode()) <= MAX_NAME_BYTES and not NO_FOLDER.fullmatch(label)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # What is in a linked folder would not be counted.
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files or none."""
    _make_folder(folder)
    try:
        for name, content in contents.items():
            with shares.writing(folder / name) as file:
                file.write(content)
    except OSError:
        for name in contents:
            (folder / name).unlink(missing_ok=True)
        raise


def _move(entry: _Entry, target: Path) -> None:
    # The picture goes first, so that it is learnt from no longer.
    for path in sorted(entry.files, key=lambda path: path.suffix != ".png"):
        shares.replace(path, target / path.name)
    entry.is_disputed, entry.files = True, [target / path.name for path in entry.files]


def _was_right(record: Path) -> bool:
    try:
        found = msgspec.json.decode(record.read_bytes(), type=_Compared)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return found.answer.accepted and found.answer.label == found.label

"""Find the samples of a data set on the disk. Each layout has a function that lists its samples; none is decoded yet.

letters/A/1.png  letters/B/x.jpg            a folder for each class (ImageFolder of torchvision)
letters/train/A/1.png  letters/test/A/9.png the same, divided by hand
letters/labels.csv                          path,label and, if you like, group and split
letters.npz, or a folder with it            images and labels
letters/train-images-idx3-ubyte  ...        pairs of IDX files, also .gz, of any count
"""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from training.data.errors import DataError
from training.data.own import arrays
from training.data.own.files import DATA_FILE, REPLAY_FILE
from training.data.own.prepare import MAX_FILE_BYTES, is_picture_name
from training.data.own.samples import PARTS, Sample, class_name, part_name
from training.origin import RECORD

TABLE = "labels.csv"
# Files that systems and people put beside pictures. They are passed over.
OTHER_NAMES = {"thumbs.db", "desktop.ini"}
OTHER_SUFFIXES = {".txt", ".md", ".csv", ".json", ".xml", ".html", ".yaml", ".yml", ".py"}
# Folders whose names begin with these are passed over: hidden ones, and those of programs, such as __MACOSX.
HIDDEN = (".", "__")
# The folder in which the service keeps pictures that got several labels.
DISPUTED = ".disputed"
# What the commands check and review write, which may be to the folder of the data set.
SHEETS = ("-classes.png", "-review.png")
HOW_TO = (
    "a data set is a folder with a folder for each class, or with labels.csv, or with IDX files, or it is an .npz file"
)


def find(place: Path) -> list[Sample]:
    """Return the samples of the data set at ``place``, sorted by name.

    Raises:
        DataError: it is not a data set, or a part of it breaks a rule. The message names the file and the way out.
    """
    try:
        _check_no_run(place)
        if place.is_file():
            if place.suffix.lower() != ".npz":
                raise DataError(f"{place}: is a file; {HOW_TO}")
            return arrays.from_npz(place)
        if not place.is_dir():
            raise DataError(f"{place}: does not exist; {HOW_TO}")
        if (place / TABLE).is_file():
            if not (samples := sorted(_from_table(place), key=lambda sample: sample.name)):
                raise DataError(f"{place / TABLE}: names no picture; add a line for each")
            return samples
        if archives := sorted(place.glob("*.npz")):
            if len(archives) > 1:
                raise DataError(f"{place}: has {len(archives)} .npz files; name one of them")
            return arrays.from_npz(archives[0])
        if pairs := arrays.idx_pairs(place):
            return arrays.from_idx(place, pairs)
        samples = sorted(_from_folders(place), key=lambda sample: sample.name)
    except OSError as error:
        raise DataError(f"{error.filename or place}: cannot be read: {error.strerror or error}") from error
    if not samples:
        raise DataError(f"{place}: holds no pictures in folders; {HOW_TO}")
    return samples


def _check_no_run(place: Path) -> None:
    folder = place if place.is_dir() else place.parent
    is_part = place.is_dir() or place.name in (DATA_FILE, REPLAY_FILE)
    if is_part and any((folder / name).is_file() for name in ("last.pt", RECORD)):
        raise DataError(
            f"{place}: is no data set but belongs to a run; name the folder of the pictures, or continue the run with "
            f"{shlex.join(['mnist-train', '--output', str(folder), '--resume'])}"
        )


def holds_classes(place: Path) -> bool:
    """Return whether ``place`` is a data set with several classes. A folder of IDX files says no class by name."""
    try:
        return not arrays.idx_pairs(place) and len({sample.label for sample in find(place)}) > 1
    except (DataError, OSError):
        return False


def bare_classes(place: Path) -> list[str]:
    """Return the names of the classes that have a folder without pictures. Other layouts have no such classes."""
    if not _has_class_folders(place):
        return []
    return sorted({label for folder, label, _ in _class_folders(place) if not any(_pictures(folder))})


def stray_pictures(place: Path) -> list[str]:
    """Return the names of pictures that lie beside the folders of the classes, so that they have no class."""
    return _beside_classes(place, lambda path: _is_users_picture(path.name) and path.is_file())


def hidden_folders(place: Path) -> list[str]:
    """Return the names of hidden folders beside those of the classes that hold pictures, except those of the service.

    The user may have meant a class, such as ``...`` or ``__``.
    """

    def holds_pictures(path: Path) -> bool:
        is_hidden = path.name.startswith(HIDDEN) and path.name != DISPUTED and path.is_dir()
        return is_hidden and any(_is_users_picture(each.name) for each in _pictures(path))

    return _beside_classes(place, holds_pictures)


def _beside_classes(place: Path, is_meant: Callable[[Path], bool]) -> list[str]:
    """Return the names of the files and folders beside those of the classes that ``is_meant`` accepts."""
    if not _has_class_folders(place):
        return []
    beside = {place, *(folder.parent for folder, _, _ in _class_folders(place))}
    return sorted(
        path.relative_to(place).as_posix() for folder in beside for path in folder.iterdir() if is_meant(path)
    )


def unlisted_pictures(place: Path, samples: Sequence[Sample]) -> list[str]:
    """Return the names of pictures that TABLE does not name. Other layouts have no such pictures.

    Args:
        samples: those of the table.
    """
    if not (place / TABLE).is_file():
        return []
    listed, others = {sample.name for sample in samples}, []
    # Pictures in linked folders may be listed by another path, so these folders are passed over.
    for parent, folders, files in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (Path(parent, name).relative_to(place).as_posix() for name in files if _is_users_picture(name))
        others += [name for name in names if name not in listed]
    return sorted(others)


def _is_users_picture(name: str) -> bool:
    return is_picture_name(name) and not name.startswith(".") and not name.endswith(SHEETS)


def _has_class_folders(place: Path) -> bool:
    return (
        place.is_dir()
        and not (place / TABLE).is_file()
        and not any(place.glob("*.npz"))
        and not arrays.idx_pairs(place)
    )


def _from_folders(place: Path) -> Iterator[Sample]:
    for folder, label, part in _class_folders(place):
        for path in _pictures(folder):
            yield Sample(path.relative_to(place).as_posix(), label, partial(read, path), part=part)


def _class_folders(place: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield each folder of a class with the name of the class, and the part of a divided data set.

    Raises:
        DataError: it is not clear whether the data set is divided.
    """
    folders = _folders(place)
    parts = {folder: PARTS[folder.name.lower()] for folder in folders if folder.name.lower() in PARTS}
    # A class may be called "test" or "train" too, but hardly one each.
    is_divided = "train" in parts.values() and (len(parts) == len(folders) or len(set(parts.values())) > 1)
    for folder in folders:
        is_part = is_divided and folder in parts
        if is_divided and not is_part and any(_pictures(folder)):
            names = " and ".join(f"{each.name}/" for each in parts)
            raise DataError(
                f"{folder}: lies beside {names}, which divide the data set; move it away, or into the folders of the "
                f"classes. If {names} are classes, rename them"
            )
        for of_class in _folders(folder) if is_part else [folder]:
            yield of_class, class_name(of_class.name, str(of_class)), parts[folder] if is_part else ""


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith(HIDDEN))


def _pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures of a class, also those in linked folders. A link to a folder around it would have no end."""
    seen = {_identity(each) for each in folder.resolve().parents}
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        if (identity := _identity(Path(parent))) in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            other = name.startswith(".") or name.lower() in OTHER_NAMES or Path(name).suffix.lower() in OTHER_SUFFIXES
            if not other:
                yield Path(parent, name)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error


def _from_table(place: Path) -> Iterator[Sample]:
    table = place / TABLE
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            # Spreadsheets of many countries write semicolons.
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            rows = [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: is not a table in UTF-8: {error}; save it as CSV in UTF-8") from error
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    if not {"path", "label"} <= set(header):
        raise DataError(
            f"{table}: its first line {','.join(header)[:80]!r} must name the columns path and label, for example "
            "path,label,group"
        )
    labels: dict[str, str] = {}
    for number, cells in rows[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{table} line {number}"
        if len(cells) != len(header):
            raise DataError(f"{where}: has {len(cells)} columns: must have {len(header)}, as the first line says")
        row = dict(zip(header, cells, strict=True))
        name = row["path"].strip()
        path = Path(name)
        if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise DataError(f"{where}: the path {name[:80]!r} must be below {place}, and relative to it")
        if not (place / path).is_file():
            raise DataError(f"{where}: there is no file {place / path}; correct the path, or remove the line")
        label = class_name(row["label"], where)
        if labels.setdefault(name, label) != label:
            raise DataError(f"{where}: {name} is {label!r} here and {labels[name]!r} before; keep one of the lines")
        part = part_name(row.get("split", ""), where)
        yield Sample(path.as_posix(), label, partial(read, place / path), row.get("group", "").strip(), part)


def read(path: Path) -> bytes:
    """Return the content of a picture file.

    Raises:
        OSError: it cannot be read, or it is too large.
    """
    if not path.is_file():
        raise OSError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(f"it has more than {MAX_FILE_BYTES} bytes")
    return content

"""Samples from arrays: an .npz file, pairs of IDX files, and images that another program has loaded."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from training.data.errors import DataError
from training.data.own import npz
from training.data.own.npz import MAX_ARRAY_BYTES, Array
from training.data.own.prepare import to_bytes
from training.data.own.samples import Sample, class_name

# The arrays of an .npz file: images, labels and groups of each part. The rows with x and y are the file of Keras.
NPZ_KEYS = (
    ("images", "labels", "groups", ""),
    ("train_images", "train_labels", "train_groups", "train"),
    ("validation_images", "validation_labels", "validation_groups", "validation"),
    ("val_images", "val_labels", "val_groups", "validation"),
    ("test_images", "test_labels", "test_groups", "test"),
    ("x_train", "y_train", "", "train"),
    ("x_val", "y_val", "", "validation"),
    ("x_test", "y_test", "", "test"),
)
# Names of classes by label, one a line, beside IDX files.
CLASSES = "classes.txt"
IDX_IMAGES = re.compile(r"(.*)images[.-]idx3-ubyte(\.gz)?", re.IGNORECASE)
MAX_SIDE = 4096


def from_npz(path: Path) -> list[Sample]:
    """Return the samples of an .npz file with ``images``, ``labels`` and, if you like, ``groups`` and ``names``.

    ``names`` are the classes by label. Without them a label is its own name.

    Raises:
        DataError: an array is missing or breaks a rule.
    """
    found = npz.read(path, {"names", *(name for *keys, _ in NPZ_KEYS for name in keys if name)})
    names = list(map(str, _decoded(f"{path}: names", found["names"].ravel()))) if "names" in found else None
    samples: list[Sample] = []
    for images, labels, groups, part in NPZ_KEYS:
        if images not in found and labels not in found:
            continue
        if images not in found or labels not in found:
            raise DataError(f"{path}: has only one of {images} and {labels}; it must have both")
        where = f"{path.name}:{images}"
        samples += from_arrays(where, found[images], found[labels], names, found.get(groups), part)
    if not samples:
        raise DataError(f"{path}: must have the arrays images and labels, but has {', '.join(found)}")
    return samples


def from_arrays(
    where: str,
    images: Array,
    labels: Array,
    names: Sequence[str] | None = None,
    groups: Array | None = None,
    part: str = "",
) -> list[Sample]:
    """Return a sample for each image, in their order.

    Args:
        where: the name of the array, for messages.
        images: ``[N, H, W]`` grey, ``[N, H, W, 1]`` grey or ``[N, H, W, 3]`` colour; whole numbers in 0..255, or
            floats in 0..1.
        labels: ``[N]``, texts or whole numbers.

    Raises:
        DataError: an array breaks a rule.
    """
    pixels, labels = _pixels(where, images), _decoded(where, labels)
    groups = groups if groups is None else _decoded(where, groups)
    if labels.ndim != 1 or len(labels) != len(images) or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: its labels have the shape {list(labels.shape)} and the type {labels.dtype}: must be "
            f"{len(images)} texts or whole numbers, one for each image"
        )
    if groups is not None and groups.shape != labels.shape:
        raise DataError(
            f"{where}: its groups have the shape {list(groups.shape)}: must be {len(labels)} texts, one for each image"
        )
    samples = []
    for i, label in enumerate(labels.tolist()):
        place = f"{where}[{i}]"
        if names is not None and isinstance(label, int):
            if not 0 <= label < len(names):
                raise DataError(
                    f"{place}: has the label {label}: must be from 0 to {len(names) - 1}; other classes have no name"
                )
            label = names[label]
        group = "" if groups is None else str(groups[i])
        samples.append(Sample(place, class_name(str(label), place), partial(_as_file, pixels[i]), group, part))
    return samples


def _decoded(where: str, texts: Array) -> Array:
    """Return an array of bytes, as other programs write texts, as one of texts. Others stay as they are."""
    try:
        return np.char.decode(texts, "utf-8") if texts.dtype.kind == "S" else texts
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: has a text that is not UTF-8: {error}; write texts and not bytes") from error


def _pixels(where: str, images: Array) -> Array:
    """Return the images as uint8."""
    colours = images.shape[3] if images.ndim == 4 else 1
    if images.ndim not in (3, 4) or colours not in (1, 3) or 0 in images.shape or max(images.shape[1:]) > MAX_SIDE:
        raise DataError(
            f"{where}: has the shape {list(images.shape)}: must be [N, H, W], [N, H, W, 1] or [N, H, W, 3]; "
            "change it with numpy's reshape or transpose"
        )
    try:
        return to_bytes(images, where)
    except ValueError as error:
        raise DataError(str(error)) from error


def _as_file(image: Array) -> bytes:
    """Return an image as the bytes of a PNM file, so that it takes the way of every other picture."""
    height, width = image.shape[:2]
    kind = 6 if image.ndim == 3 and image.shape[2] == 3 else 5
    return b"P%d %d %d 255\n" % (kind, width, height) + image.tobytes()


def idx_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the IDX files of images in ``folder``, each with its file of labels."""
    pairs = []
    for images in sorted(folder.iterdir()):
        found = IDX_IMAGES.fullmatch(images.name)
        if not found or not images.is_file():
            continue
        pattern = re.compile(re.escape(found[1]) + r"labels[.-]idx1-ubyte(\.gz)?", re.IGNORECASE)
        labels = [path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name)]
        if not labels:
            raise DataError(f"{images}: has no file of labels beside it; add {found[1]}labels-idx1-ubyte")
        pairs.append((images, labels[0]))
    return pairs


def from_idx(folder: Path, pairs: Sequence[tuple[Path, Path]]) -> list[Sample]:
    """Return the samples of pairs of IDX files. A name with ``test`` or ``t10k`` is the test set, one of several.

    Raises:
        DataError: a file is damaged.
    """
    classes = folder / CLASSES
    try:
        names = classes.read_text("utf-8-sig").splitlines() if classes.is_file() else None
    except UnicodeDecodeError as error:
        raise DataError(f"{classes}: is not a text in UTF-8: {error}; save it in UTF-8") from error
    is_divided = len({_is_test(images) for images, _ in pairs}) > 1
    samples: list[Sample] = []
    for images, labels in pairs:
        part = "" if not is_divided else "test" if _is_test(images) else "train"
        samples += from_arrays(images.name, read_idx(images, 3), read_idx(labels, 1), names, part=part)
    return samples


def _is_test(images: Path) -> bool:
    return bool(re.search("test|t10k", images.name.lower()))


def read_idx(path: Path, dimensions: int) -> Array:
    """Return the content of an IDX file of bytes.

    Raises:
        DataError: it is damaged, or it is not such a file.
    """
    head = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            start = file.read(head)
            shape = np.frombuffer(start[4:], ">u4").tolist() if len(start) == head else []
            if start[:4] != bytes([0, 0, 8, dimensions]) or not shape:
                raise DataError(f"{path}: is not an IDX file of bytes with {dimensions} dimension(s)")
            size = math.prod(shape)
            if size > MAX_ARRAY_BYTES:
                raise DataError(f"{path}: its header says {shape}: must be at most {MAX_ARRAY_BYTES} bytes")
            # One byte more shows that the file is too long.
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(content) != size:
        found = f"{len(content)} bytes; it is cut short" if len(content) < size else "more bytes"
        raise DataError(f"{path}: its header says {shape}, but it has {found}")
    return np.frombuffer(content, np.uint8).reshape(shape)

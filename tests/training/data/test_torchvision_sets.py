"""Data sets that torchvision reads: its files in a folder give the images upright and the classes by name."""

from __future__ import annotations

import bz2
import os
import shutil
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from training.data.digits import Digits, shuffled
from training.data.errors import DataError
from training.data.load import Selection, load_data
from training.data.torchvision_cpu import import_torchvision
from training.data.torchvision_sets import KEPT, SETS, load_from_torchvision

COUNT = 30


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sevens():
    """Images of a 7, each shifted a little."""
    images = np.zeros((COUNT, 28, 28), np.uint8)
    for i, image in enumerate(images):
        image[6, 6 : 20 - i % 3] = image[7, 6 : 20 - i % 3] = 255
        image[6:24, 18 - i % 3] = image[6:24, 19 - i % 3] = 255
    return images


def write_idx(path, array, kind=0x8):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.tobytes())


def place_files(name, root):
    """Write small files in torchvision's layout. The labels are the first, the last and others of the data set."""
    known = SETS[name]
    labels = np.arange(COUNT) % len(known.labels)
    raw = root / known.torchvision / "raw"
    for part, idx_part in (("train", "train"), ("test", "t10k")):
        if name == "kmnist":
            write_idx(raw / f"{idx_part}-images-idx3-ubyte", sevens())
            write_idx(raw / f"{idx_part}-labels-idx1-ubyte", labels.astype(np.uint8))
        elif name == "qmnist":
            write_idx(raw / f"qmnist-{part}-images-idx3-ubyte", sevens())
            full = np.zeros((COUNT, 8), ">i4")
            full[:, 0] = labels
            write_idx(raw / f"qmnist-{part}-labels-idx2-int", full, 0xC)
        elif name == "usps":
            lines = [f"{label + 1} " + " ".join(f"{i + 1}:{v}" for i, v in enumerate(usps())) for label in labels]
            (root / f"usps{'' if part == 'train' else '.t'}.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
        else:
            split = known.options["split"]
            write_idx(raw / f"emnist-{split}-{part}-images-idx3-ubyte", sevens().transpose(0, 2, 1).copy())
            write_idx(raw / f"emnist-{split}-{part}-labels-idx1-ubyte", (labels + known.first).astype(np.uint8))
    return labels


def usps():
    image = np.full((16, 16), -1.0)
    image[2, 3:12] = image[3, 3:12] = image[2:14, 11] = image[2:14, 12] = 1.0
    return image.ravel()


def test_cache_keeps_the_prepared_images_that_were_used_last(tmp_path):
    place_files("kmnist", tmp_path)
    folder = tmp_path / "cache" / "mnist-service" / "prepared"

    def age(name, seconds):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (seconds, seconds))

    def load(prepare):
        load_data("kmnist", Selection(prepare, tmp_path))
        return {file.name for file in folder.iterdir()}

    used = load("symbol")
    for number, name in enumerate(sorted(used)):
        age(name, number)
    for number in range(KEPT):
        age(f"kmnist-{number}.npy", 10 + number)
    age("usps-0.npy", 0)
    load("symbol")  # It is used again.
    found = load("as-is")
    assert used < found
    assert len(found - {"usps-0.npy"}) == KEPT
    assert "usps-0.npy" in found


@pytest.mark.parametrize("name", SETS)
def test_files_in_torchvisions_layout_are_read(name, tmp_path, monkeypatch):
    labels = place_files(name, tmp_path)
    monkeypatch.setattr(import_torchvision().datasets.usps, "download_url", lambda *_, **__: None)
    splits = load_data(name, Selection(folder=tmp_path, validation=5))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (25, 5, 30)
    assert splits.labels == SETS[name].labels
    order = shuffled(Digits(torch.arange(COUNT), torch.arange(COUNT))).labels
    assert splits.test.labels.tolist() == labels[order].tolist() != labels.tolist()
    # A 7 has its ink at the top and at the right.
    image = splits.test.images[0].float()
    assert image[:14].sum() > image[14:].sum()
    assert image[14:, 14:].sum() > 2 * image[14:, :14].sum()
    again = load_from_torchvision(name, "symbol", folder=tmp_path)  # from the cache
    assert again.digests == splits.digests
    assert again.test.images.equal(splits.test.images)


def test_validation_set_leaves_something_to_learn_from(tmp_path):
    place_files("kmnist", tmp_path)
    assert len(load_data("kmnist", Selection(folder=tmp_path, validation=COUNT - 1)).train) == 1
    with pytest.raises(DataError, match=r"^kmnist: has 30 training images; --validation must be less, not 30$"):
        load_data("kmnist", Selection(folder=tmp_path, validation=COUNT))


def test_names_of_the_classes_are_those_of_torchvision():
    datasets = import_torchvision().datasets
    assert list(SETS["kmnist"].labels) == datasets.KMNIST.classes
    assert ["N/A", *SETS["emnist-letters"].labels] == datasets.EMNIST.classes_split_dict["letters"]
    assert list(SETS["emnist-balanced"].labels) == datasets.EMNIST.classes_split_dict["balanced"]
    assert len(SETS["emnist-balanced"].labels) == 47


@pytest.fixture
def downloads(monkeypatch):
    """The folders into which torchvision wanted to download something. It finds no network."""
    found = []

    def offline(*_, download_root, **__):
        found.append(Path(download_root))
        raise URLError("no route to host")

    monkeypatch.setattr(import_torchvision().datasets.mnist, "download_and_extract_archive", offline)
    return found


def test_data_set_that_is_nowhere_is_one_line(tmp_path, downloads):
    with pytest.raises(DataError, match=r"^kmnist: .*no route to host.*put its files there by hand.*--data$"):
        load_data("kmnist", Selection(folder=tmp_path))


def test_folder_of_the_flag_is_the_only_source(tmp_path, downloads):
    place_files("kmnist", tmp_path / "cache" / "mnist-service" / "kmnist")
    folder = tmp_path / "downloaded"
    with pytest.raises(DataError, match=rf"^--data {folder}: .*not found; put its files there, unpacked"):
        load_data("kmnist", Selection(folder=folder, only_folder=True))
    assert not folder.exists()
    assert downloads == []


def test_advice_names_the_packed_files_of_usps(tmp_path):
    with pytest.raises(DataError, match=r"put its files there, packed \(usps\.bz2 and usps\.t\.bz2\), or"):
        load_data("usps", Selection(folder=tmp_path, only_folder=True))


def test_folder_of_the_variable_is_the_first_source_and_stays_as_it_is(tmp_path, downloads, capsys):
    folder, cache = tmp_path / "mounted", tmp_path / "cache" / "mnist-service" / "kmnist"
    place_files("kmnist", cache)
    assert len(load_data("kmnist", Selection(folder=folder)).test) == COUNT
    assert f"kmnist: cannot load from the folder {folder}: Dataset not found" in capsys.readouterr().err
    assert not folder.exists()
    shutil.rmtree(cache)
    with pytest.raises(DataError):
        load_data("kmnist", Selection(folder=folder))
    assert downloads == [cache / "KMNIST" / "raw"]

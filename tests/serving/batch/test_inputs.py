"""Which pictures the arguments of mnist-predict name, and in which order."""

from __future__ import annotations

import inspect
import io
import os
import resource
import sys

import pytest

from serving.batch.inputs import CHUNK, Input, Inputs, shown
from serving.errors import InputsError
from tests.support import ROOT

SEVEN = (ROOT / "tests" / "seven.png").read_bytes()


def inputs(*arguments, stdin=b""):
    return Inputs(map(str, arguments), io.BytesIO(stdin))


def names(*arguments, stdin=b""):
    return [name for name, _ in inputs(*arguments, stdin=stdin)]


@pytest.fixture
def scans(tmp_path, monkeypatch):
    for name in ("b.png", "a.JPG", "sub/c.png", "notes.txt", ".hidden.png", ".git/d.png", "e.tiff"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SEVEN)
    monkeypatch.chdir(tmp_path)


def test_folder_is_walked_in_the_order_of_its_names(scans):
    found = inputs("scans")
    assert [name for name, _ in found] == ["scans/a.JPG", "scans/b.png", "scans/e.tiff", "scans/sub/c.png"]
    assert (found.total, found.left_out) == (4, 1)


def test_folders_may_be_deeper_than_calls_of_python(tmp_path):
    bottom = tmp_path.joinpath(*["d"] * 200)
    bottom.mkdir(parents=True)
    (bottom / "a.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        assert names(tmp_path) == [str(bottom / "a.png")]
    finally:
        sys.setrecursionlimit(limit)


def test_arguments_keep_their_order_and_may_repeat(scans):
    assert names("scans/b.png", "scans/a.JPG", "scans/b.png") == ["scans/b.png", "scans/a.JPG", "scans/b.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("scans/*.png", ["scans/b.png"]),
        ("scans/**/*.png", ["scans/b.png", "scans/sub/c.png"]),
        ("scans/*", ["scans/a.JPG", "scans/b.png", "scans/e.tiff", "scans/notes.txt"]),
        ("./scans/[ab].*", ["./scans/a.JPG", "./scans/b.png"]),
    ],
)
def test_pattern_names_files(scans, pattern, expected):
    assert names(pattern) == expected


def test_name_that_looks_like_a_pattern_is_taken_as_it_is(scans, tmp_path):
    (tmp_path / "scan[1].png").write_bytes(SEVEN)
    assert names("scan[1].png") == ["scan[1].png"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\0"])
def test_list_has_a_name_per_line(tmp_path, ending):
    text = ending.join([b"b.png", b"", "dÿ 1.png".encode(), b"\xff.png"])
    for content in (text, text + ending, b"\xef\xbb\xbf" + text):
        (tmp_path / "list.txt").write_bytes(content)
        for found in (names(tmp_path / "list.txt"), names("-", stdin=content)):
            assert found == ["b.png", "dÿ 1.png", os.fsdecode(b"\xff.png")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_list_in_utf_16_is_one_error(tmp_path, encoding):
    (tmp_path / "list.txt").write_bytes("a.png\r\nb.png\nc.png\r\n".encode(encoding))
    for found in (inputs(tmp_path / "list.txt"), inputs("-", stdin=(tmp_path / "list.txt").read_bytes())):
        [each] = found
        assert each.error.endswith("it is in UTF-16, as PowerShell writes it; save it in UTF-8")


def test_standard_input_that_cannot_be_read_is_an_input_with_an_error():
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    assert list(Inputs(["-", "a.png"], Broken())) == [Input("-", "Input/output error"), Input("a.png")]


def test_list_of_many_names_is_read_in_pieces():
    expected = [f"{'x' * 60}/{i}.png" for i in range(5000)]
    found = inputs("-", stdin="\n".join(expected).encode())
    assert [name for name, _ in found] == expected
    assert [len(chunk) for chunk in found.chunks(5000 - CHUNK - 8)] == [CHUNK, 8]


def test_standard_input_may_be_a_picture():
    found = inputs("-", "a.png", stdin=SEVEN)
    assert list(found) == [Input("-"), Input("a.png")]
    assert found.picture == SEVEN


@pytest.mark.parametrize("name", ["BM.png", "P5.png", "GIF8.gif", "RIFF", "P1 x.png"])
def test_list_may_begin_like_a_picture(name):
    found = inputs("-", stdin=f"{name}\nb.png\n".encode())
    assert (found.picture, [name for name, _ in found]) == (None, [name, "b.png"])


def test_argument_without_pictures_is_an_input_with_an_error(scans, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    assert list(inputs("", "empty", "none/*.png", "empty.txt", "none.txt", "-")) == [
        Input("", "the name is empty; name a picture"),
        Input("empty", "the folder holds no picture"),
        Input("none/*.png", "no file has a name of this form"),
        Input("empty.txt", "the list of names is empty"),
        Input("none.txt", "No such file or directory"),
        Input("-", "the list of names is empty"),
    ]


def test_full_temporary_disk_is_one_line():
    names = "\n".join(f"{'x' * 1000}{i}.png" for i in range(5000)).encode()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InputsError, match=r"in a temporary file: .*; free some space .* with SQLITE_TMPDIR$"):
            inputs("-", stdin=names)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_endless_line_is_not_read_to_its_end():
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert size >= 0
            return b"x" * size

    [found] = Inputs(["-"], Endless())
    assert found.name == "-"
    assert "not a list of names" in found.error


def test_name_that_is_not_text_is_shown_with_escapes():
    assert shown(os.fsdecode(b"d\xff.png")) == r"d\xff.png"

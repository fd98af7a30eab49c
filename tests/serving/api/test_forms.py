"""Forms are read in memory, in the order of their parts, and no part chooses how it is decoded."""

from __future__ import annotations

import tempfile
import time
import tracemalloc

import pytest

from serving.api.forms import MAX_BOUNDARY, MAX_FIELDS, files_in_form
from serving.errors import InputError, InputTooLargeError
from tests.support import application, picture

TYPE = "multipart/form-data; boundary=b"


def part(content=b"", disposition='name="f"; filename="x"', *headers):
    lines = [f"content-disposition: form-data; {disposition}", *headers, "", ""]
    return b"--b\r\n" + "\r\n".join(lines).encode() + content + b"\r\n"


def form(*parts):
    return b"".join(parts) + b"--b--\r\n"


def files(body, limit=1024, kind=TYPE):
    return files_in_form(body, kind, limit)


def test_files_come_in_the_order_of_the_parts():
    contents = [b"%d" % i for i in range(50)]
    parts = [part(content, f'name="{97 * i % 50}"; filename="x"') for i, content in enumerate(contents)]
    assert files(form(*parts)) == contents


def test_predictions_come_in_the_order_of_the_parts(client, digits, truth):
    fields = [(f"name{i * 7 % 20}", ("x.png", picture(255 - digits[i]), "image/png")) for i in range(20)]
    predictions = client.post("/predict", files=fields).json()["predictions"]
    assert [prediction["digit"] for prediction in predictions] == truth[:20].tolist()


def test_content_of_any_size_is_read_whole():
    contents = [b"", b"\r\n", b"\r\n--", b"--b", b"x" * 200_000, b"\r\n--b" * 3, bytes(range(256)) * 1000]
    contents = [content.replace(b"\r\n--b", b"\r\n--c") for content in contents]
    assert files(form(*map(part, contents))) == contents


@pytest.mark.parametrize(
    ("disposition", "is_file"),
    [
        ('name="f"; filename="x.png"', True),
        ("name=f; filename=x.png", True),
        ('name="f"; FILENAME="x.png"', True),
        ("filename=x; name=f", True),
        ('filename="x"', True),
        ("name=\"f\"; filename*=UTF-8''%c3%a4.png", True),
        ('name="f"; filename="\u00e4.png"', True),
        ('name="f"; filename=""', True),
        ('name="f"', False),
        ('name="filename"', False),
        ('name="a; filename=x"', False),
    ],
)
def test_part_with_a_file_name_is_a_file(disposition, is_file):
    body = form(part(b"content", disposition), part(b"last"))
    assert files(body) == [b"content", b"last"][not is_file :]


@pytest.mark.parametrize(
    ("kind", "is_file"),
    [
        ("image/png", True),
        ("IMAGE/JPEG; x=y", True),
        ("application/octet-stream", True),
        ("text/plain", False),
        ("application/json", False),
    ],
)
def test_part_without_a_file_name_is_a_file_by_its_type(kind, is_file):
    body = form(part(b"content", 'name="f"', f"content-type: {kind}"), part(b"last"))
    assert files(body) == [b"content", b"last"][not is_file :]


@pytest.mark.parametrize("parts", [(), (part(b"iVBORw0KGgo=", 'name="files"'),), (part(b"", 'name="f"; filename=""'),)])
def test_form_without_a_file_is_told_how_to_send_one(client, parts):
    response = client.post("/predict", content=form(*parts), headers={"content-type": TYPE})
    assert response.status_code == 400
    assert "the form has no image; send each picture as a part with a file name" in response.json()["detail"]


def test_file_name_in_any_charset_is_accepted():
    body = form(part(b"content")).replace(b'"x"', b'"\xe4\xff.png"')
    assert files(body) == [b"content"]


def test_field_of_a_browser_without_a_chosen_file_is_skipped():
    assert files(form(part(b"", 'name="f"; filename=""'), part(b"1"))) == [b"1"]


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "zip", "undefined", "x" * 1000])
def test_charset_and_encoding_of_a_part_are_never_used(charset):
    headers = (f"content-type: text/plain; charset={charset}", "content-transfer-encoding: base64")
    text = part(b"a" * 400_000, 'name="_charset_"', *headers)
    started = time.monotonic()
    assert files(form(text, part(b"QUJD", 'name="f"; filename="x"', *headers))) == [b"QUJD"]
    # The charset punycode would take half a minute.
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("count", [1000, 1024])
def test_form_may_have_as_many_files_as_images_are_allowed(digits, count):
    image = picture(255 - digits[0])
    with application(work_timeout=60) as client:
        response = client.post("/predict", files=[("files", ("x.png", image, "image/png"))] * count)
    assert len(response.json()["predictions"]) == count


@pytest.mark.parametrize("count", [3, 500])
def test_form_with_too_many_files_gets_413_with_the_limit(count):
    with application(max_batch=2) as client:
        response = client.post("/predict", files=[("files", ("x.png", b"x", "image/png"))] * count)
    assert response.status_code == 413
    assert "more than 2 files" in response.json()["detail"]


def test_form_with_far_too_many_fields_gets_413_with_the_limit():
    fields = part(b"", 'name="f"')
    assert files(form(*[fields] * MAX_FIELDS, part(b"1")), limit=1) == [b"1"]
    with pytest.raises(InputTooLargeError, match=f"{MAX_FIELDS + 1} parts"):
        files(form(*[fields] * (MAX_FIELDS + 2)), limit=1)


DAMAGED = {
    "empty": b"",
    "no end": part(b"x"),
    "no header": b"--b\r\n\r\nx\r\n--b--",
    "header without a colon": b"--b\r\nrubbish\r\n\r\nx\r\n--b--",
    "no form-data": b'--b\r\ncontent-disposition: attachment; filename="x"\r\n\r\nx\r\n--b--',
    "line feeds only": form(part(b"x")).replace(b"\r\n", b"\n"),
    "other boundary": form(part(b"x")).replace(b"--b", b"--c"),
    "text after the boundary": form(part(b"x")).replace(b"--b\r\n", b"--bb\r\n"),
    "wrong length": form(part(b"x", 'name="f"; filename="x"', "content-length: 7")),
    "length that is no number": form(part(b"x", 'name="f"; filename="x"', "content-length: " + "9" * 4000)),
    "header name with spaces": form(part(b"x", 'name="f"; filename="x"', "a b: c")),
}


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_form_is_rejected(body):
    with pytest.raises(InputError):
        files(body)


@pytest.mark.parametrize("header", ["x: " + "y" * 5000, "\r\n".join(["x: y"] * 9)])
def test_headers_of_a_part_are_bounded(header):
    with pytest.raises(InputTooLargeError):
        files(form(part(b"x", 'name="f"; filename="x"', header)))


@pytest.mark.parametrize("boundary", ["", '""', "b" * (MAX_BOUNDARY + 1), "\u00e4" * (MAX_BOUNDARY + 1)])
def test_length_of_the_boundary_is_limited(boundary):
    with pytest.raises(InputError, match="boundary"):
        files(form(part(b"x")), kind=f"multipart/form-data; boundary={boundary}")


def test_boundary_may_be_quoted_and_hold_any_character():
    assert files(form(part(b"x")), kind='multipart/form-data; charset=punycode; boundary="b"') == [b"x"]
    assert files(form(part(b"x")).replace(b"--b", b"--\xe4 ("), kind='multipart/form-data; boundary="\xe4 ("') == [b"x"]


SIZE = 8_000_000
LONG = b"-" * 200
HOSTILE = {
    "beginnings of the boundary": (part() + b"\r\n--bounda" * (SIZE // 10), "boundary=boundary"),
    "beginnings of a long boundary": (part() + (b"\r\n" + LONG + b"-") * (SIZE // 203), f"boundary={LONG.decode()}"),
    "dashes": (part().replace(b"--b", b"--" + LONG) + b"x" + b"-" * SIZE, f"boundary={LONG.decode()}"),
    "carriage returns": (part() + b"\r" * SIZE, "boundary=b"),
    "tiny parts": (part() * (SIZE // len(part())), "boundary=b"),
    "tiny fields": (part(b"", "name=f") * (SIZE // 50), "boundary=b"),
    "tiny headers": (b"--b\r\n" + b"a:b\r\n" * (SIZE // 5), "boundary=b"),
    "quotes in a header": (part(b"", "name=f" + ';a="' * 900) * (SIZE // 4000), "boundary=b"),
    "escapes in a header": (part(b"", 'name=f;a="' + r"\"" * 1900) * (SIZE // 4000), "boundary=b"),
    "one header": (b"--b\r\na:" + b"b" * SIZE, "boundary=b"),
}


@pytest.mark.parametrize(("body", "kind"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_form_takes_little_time_and_memory(body, kind):
    body = body[:SIZE]
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(InputError):
            files(body, kind=f"multipart/form-data; {kind}")
        assert time.monotonic() - started < 60
        assert tracemalloc.get_traced_memory()[1] < 3 * SIZE
    finally:
        tracemalloc.stop()


def test_form_leaves_nothing_on_disk(client, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    for name in ("mkstemp", "TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile"):
        monkeypatch.setattr(tempfile, name, fail)
    with_a_large_field = {"data": {"text": "x" * 3_000_000}, "files": {"f": ("x.png", b"x" * 3_000_000, "image/png")}}
    response = client.post("/predict", **with_a_large_field)
    assert (response.status_code, "not a picture" in response.json()["detail"]) == (400, True)

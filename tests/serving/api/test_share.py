"""What messengers show beside a link to the page, where others can open it: a title, a sentence and a picture."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from serving.api.page import read_files, with_card
from tests.support import application


@pytest.fixture(scope="module")
def client():
    """A client of a service that others can reach."""
    with application(host="0.0.0.0") as client:
        yield client


def address(response):
    found = re.findall(r'<meta property="og:image" content="([^"]*)">', response.text)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("host", "protocol", "expected"),
    [
        ("digits.example.org", None, "http://digits.example.org/share.png"),
        ("digits.example.org:8000", None, "http://digits.example.org:8000/share.png"),
        ("digits.example.org", "https", "https://digits.example.org/share.png"),
        ("192.0.2.7:8000", None, "http://192.0.2.7:8000/share.png"),
        ("[2001:db8::7]:8000", None, "http://[2001:db8::7]:8000/share.png"),
        ("xn--bcher-kva.example", "http", "http://xn--bcher-kva.example/share.png"),
        # Nobody else can open these.
        ("localhost:8000", None, None),
        ("127.0.0.1:8000", None, None),
        ("[::1]:8000", None, None),
        ("a.localhost", "https", None),
    ],
)
def test_page_has_the_address_of_its_picture(client, host, protocol, expected):
    headers = {"host": host} | ({"x-forwarded-proto": protocol} if protocol else {})
    for path in ("/", "/index.html"):
        assert address(client.get(path, headers=headers)) == expected


@pytest.mark.parametrize(
    ("host", "protocol"),
    [
        *((host, b"https") for host in (b'a"><script>', b"a b", b"me@example.org", b"example.org/x", b"", b"x" * 300)),
        *((host, b"https") for host in (b"example.org:99999999", b"\xff", b"[::1", b"[x]", b"-a")),
        *((b"example.org", protocol) for protocol in (b"javascript", b'https"><script>', b"https,http", b"")),
    ],
)
def test_what_is_no_name_and_no_protocol_is_not_repeated(host, protocol):
    page = read_files()["index.html"]
    headers = [(b"host", host), (b"x-forwarded-proto", protocol)]
    assert with_card(page, headers, "http") is page


def test_unchanged_page_of_each_host_is_not_sent_again(client):
    tags = {}
    for host in ("one.example", "two.example"):
        tags[host] = client.get("/", headers={"host": host}).headers["etag"]
        again = client.get("/", headers={"host": host, "if-none-match": tags[host]})
        assert (again.status_code, again.content) == (304, b"")
    assert tags["one.example"] != tags["two.example"]


def test_page_says_what_a_link_to_it_shows(client):
    page = client.get("/", headers={"host": "digits.example.org"}).text
    for name in ("og:title", "og:description", "og:type", "twitter:card"):
        assert len(re.findall(rf'<meta (?:property|name)="{name}" content="[^"]+">', page)) == 1
    share = Image.open(io.BytesIO(client.get("/share.png").content))
    # The size that social networks ask for; smaller ones are shown as a thumbnail.
    assert share.size == (1200, 630)
    assert '<link rel="apple-touch-icon"' in page

"""POST and GET /feedback: what is stored, what is rejected, the bounds, and pictures with several labels."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import msgspec
import numpy as np
import pytest

from serving import shares
from serving.api import feedback as route
from serving.errors import InputError, SettingsError, StorageFullError
from serving.feedback import store as stored
from serving.feedback.records import Answer, ModelVersion, Record
from serving.feedback.store import Store, is_folder_name
from serving.inference.threads import INLINE_BYTES
from serving.pictures.containers import bare_png
from serving.pictures.prepare import prepare
from serving.server.handover import lasting
from serving.service.service import MAX_STORING
from serving.settings import RELEASE, Settings
from tests.serving.pictures.files import chunk
from tests.serving.server.clients import metric
from tests.support import PIXELS, ROOT, application, picture, service, until
from training.data.own.layouts import find

SEVEN = (ROOT / "tests" / "seven.png").read_bytes()
JPEG = b"\xff\xd8\xff\xe0"
PNG = {"content-type": "image/png"}
CURL = {"content-type": "application/x-www-form-urlencoded"}
ADMIN = {"x-api-key": "ADMIN"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "feedback"


@pytest.fixture
def give(folder):
    """A function that sends a correction, and the client as its attribute."""
    with application(feedback=str(folder), admin_keys="ADMIN") as client:

        def give(label="7", content=SEVEN, headers=PNG, **query):
            parameters = {"label": label, "consent": "yes"} | query
            parameters = {name: value for name, value in parameters.items() if value is not None}
            return client.post("/feedback", params=parameters, content=content, headers=headers)

        give.client = client
        yield give


def files_in(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


def drawing(seed):
    """A picture that looks like no other."""
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 10:18] = np.random.default_rng(seed).integers(0, 256, (20, 8))
    return picture(image)


def test_correction_is_stored_in_the_layout_that_training_reads(give, folder):
    response = give(headers=PNG | {"x-request-id": "prediction-1"})
    assert response.status_code == 201
    assert response.json()["outcome"] == "stored"
    assert response.json()["answer"]["label"] == "7"
    [record, stored] = files_in(folder)
    assert stored.startswith("7/")
    assert stored == record.removesuffix("json") + "png"
    [sample] = find(folder)
    assert sample.label == "7"
    said = json.loads((folder / record).read_text())
    assert said.keys() == {"label", "answer", "model", "request_id", "time", "image", "model_sha256"}
    assert (said["label"], said["request_id"]) == ("7", "prediction-1")
    assert said["model"] == {"name": "mnist", "version": "1"}
    manifest = json.loads((RELEASE / "mnist" / "1" / "manifest.json").read_text())
    assert said["model_sha256"] == manifest["files"]["model.onnx"]["sha256"]
    assert said["answer"].keys() == {"label", "confidence", "accepted", "reason"}
    assert datetime.fromisoformat(said["time"]).tzinfo
    assert np.array_equal(np.array(said["image"], np.uint8), prepare(sample.read()).image)
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_only_pixels_of_a_picture_are_stored(give, folder):
    text = chunk(b"tEXt", b"Author\0a visitor")
    assert give(content=SEVEN[:33] + text + SEVEN[33:] + b"after the end").status_code == 201
    [sample] = find(folder)
    assert b"visitor" not in sample.read()
    assert b"after" not in sample.read()
    assert np.array_equal(prepare(sample.read()).image, prepare(SEVEN).image)


@pytest.mark.parametrize("headers", [{}, CURL, {"content-type": "application/octet-stream"}])
def test_png_is_known_by_its_bytes_where_no_content_type_says_otherwise(give, folder, headers):
    assert give(headers=headers).status_code == 201
    [sample] = find(folder)
    assert sample.read() == bare_png(SEVEN)


def test_large_picture_is_read_on_a_thread(give, folder, monkeypatch):
    threads = []
    monkeypatch.setattr(
        route, "bare_png", lambda body: threads.append(threading.current_thread().name) or bare_png(body)
    )
    text = chunk(b"tEXt", bytes(INLINE_BYTES))
    assert give().status_code == 201
    assert give(content=SEVEN[:33] + text + SEVEN[33:]).status_code == 200
    small, large = threads
    assert "large" not in small
    assert "large" in large


def test_same_correction_is_stored_once(give, folder):
    assert give().status_code == 201
    again = give()
    assert (again.status_code, again.json()["outcome"]) == (200, "known")
    assert len(files_in(folder)) == 2


def test_picture_with_two_labels_is_set_aside_and_listed(give, folder):
    give()
    give(content=drawing(1))
    assert give("1").json()["outcome"] == "disputed"
    assert give("7").json()["outcome"] == "known"
    assert give("4").json()["outcome"] == "disputed"
    assert [sample.name.split("/")[0] for sample in find(folder)] == ["7"]
    report = give.client.get("/feedback", headers=ADMIN).json()
    assert (report["pictures"], report["disputed_pictures"], report["files"]) == (1, 1, 8)
    [disputed] = report["disputed"]
    assert disputed["labels"] == ["1", "4", "7"]
    assert (folder / ".disputed" / "4" / f"{disputed['digest']}.png").exists()


def test_report_counts_the_labels_and_the_right_answers(give, folder):
    give()
    for seed in range(3):
        give("3", drawing(seed))
    report = give.client.get("/feedback", headers=ADMIN).json()
    assert report["labels"] == {"3": {"pictures": 3, "right": 0}, "7": {"pictures": 1, "right": 1}}
    assert report["bytes"] == sum((folder / name).stat().st_size for name in files_in(folder))


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"label": "x"}, 400, "label 'x': must be a class of mnist: 0, 1, 2"),
        ({"label": "../7"}, 400, "must be a class of mnist"),
        ({"label": ""}, 400, "label '': must be a class of mnist: 0, 1, 2"),
        ({"label": None}, 400, "label: is missing; must be a class of mnist: 0, 1, 2"),
        ({"consent": "no"}, 400, "consent 'no': must be yes, after the visitor has agreed"),
        ({"consent": None}, 400, "consent: is missing; must be yes, after the visitor has agreed"),
        ({"labl": "7"}, 400, "parameter 'labl': unknown; did you mean label? choose from label, consent, version"),
        ({"version": "9"}, 404, "has no version '9'"),
        ({"content": b""}, 400, "is not a PNG"),
        ({"content": JPEG}, 400, "the body is not a PNG; send one uncompressed image/png; with curl: -H"),
        ({"content": JPEG, "headers": CURL}, 400, "convert a JPEG or another picture to PNG first"),
        ({"content": JPEG, "headers": {"content-type": "image/jpeg"}}, 415, "convert a JPEG"),
        ({"content": SEVEN[:-20]}, 400, "is cut short"),
        ({"content": SEVEN[:8]}, 400, "is cut short"),
        ({"content": SEVEN[:8] + SEVEN[-12:]}, 400, ""),
        ({"content": picture(np.full((50, 50), 255, np.uint8))}, 400, "the picture is empty"),
        ({"headers": {"origin": "null"}}, 415, "Content-Type: is missing; send one uncompressed image/png"),
        ({"headers": CURL | {"origin": "http://example.com"}}, 415, "not supported here; send one uncompressed"),
        ({"headers": CURL | {"sec-fetch-site": "cross-site"}}, 415, "not supported here; send one uncompressed"),
        ({"headers": {"content-type": "text/plain"}}, 415, "Content-Type 'text/plain': not supported here"),
        ({"headers": {"content-type": "multipart/form-data; boundary=x"}}, 415, "with curl: -H 'content-type:"),
        ({"headers": PNG | {"content-encoding": "gzip"}}, 415, "Content-Encoding 'gzip': not supported here"),
    ],
)
def test_wrong_correction_stores_nothing(give, folder, changes, status, reason):
    response = give(**changes)
    assert response.status_code == status
    assert reason in response.json()["detail"]
    assert files_in(folder) == []


def test_feedback_is_off_by_default(client):
    assert client.post("/feedback?label=7&consent=yes", content=SEVEN, headers=PNG).status_code == 403
    assert client.get("/feedback").status_code == 403
    assert 'id="feedback" hidden' in client.get("/").text


def test_keys_decide_who_may_send_and_who_may_count(folder):
    path = "/feedback?label=7&consent=yes"
    keys = {"feedback_keys": "F", "predict_keys": "P", "admin_keys": "A"}
    with application(feedback=str(folder), **keys) as client:
        sent = [client.post(path, content=SEVEN, headers=PNG | key).status_code for key in offered("PFA")]
        counted = [client.get("/feedback", headers=key).status_code for key in offered("PFA")]
        read = [client.post("/predict", content=SEVEN, headers=PNG | key).status_code for key in offered("PFA")]
    assert (sent, counted, read) == ([401, 401, 201, 200], [401, 401, 401, 200], [401, 200, 200, 200])
    with application(feedback=str(folder), predict_keys="P") as client:
        assert [client.post(path, content=SEVEN, headers=PNG | key).status_code for key in offered("P")] == [401, 200]


def offered(keys):
    return [{}, *({"x-api-key": key} for key in keys)]


def test_service_for_others_needs_a_key_to_store(tmp_path):
    with pytest.raises(SettingsError, match=r"needs a key, because 0\.0\.0\.0 can be reached by others"):
        Settings(feedback=str(tmp_path), host="0.0.0.0")
    Settings(feedback=str(tmp_path), host="0.0.0.0", feedback_keys_file="keys")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"--feedback .*file: cannot be written: File exists; name another folder"):
        Store(Settings(feedback=str(tmp_path / "file")))


def test_workers_get_the_same_folder_and_key_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("KEY")
    settings = lasting(Settings(feedback="corrections", feedback_keys_file="keys"))
    assert (settings.feedback, settings.feedback_keys_file) == (str(tmp_path / "corrections"), str(tmp_path / "keys"))
    assert lasting(Settings()).feedback == ""


# The bounds.


def record(seed, label="7"):
    image = np.random.default_rng(seed).integers(0, 256, (28, 28)).tolist()
    return Record(label, Answer(label, 1.0, True, None), ModelVersion("mnist", "1"), "id", "time", image)


def size(seed, content):
    return len(content) + len(msgspec.json.encode(record(seed)))


def test_full_folder_rejects_more(folder):
    store = Store(Settings(feedback=str(folder), feedback_files=4))
    for seed in range(2):
        store.add(b"png", record(seed), time.monotonic() + 9)
    with pytest.raises(StorageFullError, match="raise --feedback-bytes or --feedback-files"):
        store.add(b"png", record(2), time.monotonic() + 9)
    assert store.add(b"png", record(1), time.monotonic() + 9) == "known"
    assert len(files_in(folder)) == 4
    with application(feedback=str(folder), feedback_files=4) as client:
        response = client.post("/feedback?label=7&consent=yes", content=SEVEN, headers=PNG)
        assert response.status_code == 507
    limit = size(0, b"png") + size(1, b"png")
    with pytest.raises(StorageFullError):
        Store(Settings(feedback=str(folder), feedback_bytes=limit)).add(b"png", record(2), time.monotonic() + 9)


def test_label_with_an_accent_of_its_own_is_the_class():
    # A Mac names folders so, and both look the same in a message.
    model = SimpleNamespace(name="runes", labels=["Fehu", "Gr\u00f6\u00dfe"])
    assert route.label_of("Gro\u0308\u00dfe", model) == route.label_of("Gr\u00f6\u00dfe", model) == "Gr\u00f6\u00dfe"
    with pytest.raises(InputError, match="must be a class of runes"):
        route.label_of("Gro\u00dfe", model)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.parent, target_is_directory=True)])
def test_class_folder_that_is_none_is_refused(folder, make):
    folder.mkdir()
    make(folder / "7")
    with pytest.raises(StorageFullError, match="must be plain and writable"):
        Store(Settings(feedback=str(folder))).add(b"png", record(1), time.monotonic() + 9)
    assert not [path for path in files_in(folder) if path.endswith((".json", ".png"))]


def test_record_without_its_picture_does_not_stay(folder, monkeypatch):
    def write(path):
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writing(path)

    writing = shares.writing
    monkeypatch.setattr(shares, "writing", write)
    with pytest.raises(OSError, match="No space left"):
        Store(Settings(feedback=str(folder))).add(b"png", record(1), time.monotonic() + 9)
    assert files_in(folder / "7") == []


def test_correction_that_cannot_be_stored_leaves_the_one_before(give, folder, monkeypatch, caplog):
    def write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    give("7")
    before = files_in(folder)
    monkeypatch.setattr(shares, "writing", write)
    assert give("4").status_code == 507
    assert f"No space left on device: '{folder}'" in caplog.text
    assert files_in(folder) == before
    monkeypatch.undo()
    assert give("4").json()["outcome"] == "disputed"


@pytest.mark.parametrize("limits", [{"feedback_files": 6}, {"feedback_bytes": 3 * 4000}])
def test_oldest_corrections_make_room_and_other_files_stay(folder, limits):
    """The owner's own pictures in the folder neither count nor are ever removed."""
    (folder / "7").mkdir(parents=True)
    for number in range(9):
        (folder / "7" / f"own-{number}.png").write_bytes(bytes(9000))
    store = Store(Settings(feedback=str(folder), feedback_full="oldest", **limits))
    stored = []
    for seed in range(5):
        before = set(files_in(folder))
        store.add(b"png", record(seed), time.monotonic() + 9)
        [new] = [Path(name).stem for name in set(files_in(folder)) - before if name.endswith("png")]
        stored.append(new)
        for name in files_in(folder):
            if new in name:
                os.utime(folder / name, (seed, seed))
    kept = {Path(name).stem for name in files_in(folder) if "own" not in name}
    report = store.report()
    assert kept == set(stored[-len(kept) :])
    assert 2 <= len(kept) <= 3
    assert report.files <= report.max_files
    assert report.bytes <= report.max_bytes
    assert len([name for name in files_in(folder) if "own" in name]) == 9


def test_disputed_picture_for_which_the_oldest_make_no_room_is_rejected(folder):
    store = Store(Settings(feedback=str(folder), feedback_files=4, feedback_full="oldest"))
    for seed, label in ((1, "7"), (0, "3"), (0, "5")):
        store.add(b"png", record(seed, label), time.monotonic() + 9)
    before = files_in(folder)
    assert [Path(name).parent.name for name in before] == ["3", "3", "5", "5"]
    with pytest.raises(StorageFullError, match="in 4 files; the operator must move some away"):
        store.add(b"png", record(0, "8"), time.monotonic() + 9)
    assert files_in(folder) == before


@pytest.mark.parametrize(
    "content", [b"{", b'{"label": "\xff"}', b'{"x":' + b"[" * 100_000], ids=["cut", "bytes", "deep"]
)
def test_report_survives_a_damaged_record(folder, content):
    store = Store(Settings(feedback=str(folder)))
    add(store, 0)
    [record] = folder.glob("*/*.json")
    record.write_bytes(content)
    [count] = store.report().labels.values()
    assert (count.pictures, count.right) == (1, 0)


def test_report_survives_a_correction_that_is_moved_meanwhile(folder, monkeypatch):
    store = Store(Settings(feedback=str(folder)))
    for label in "37":
        store.add(b"png", record(int(label), label), time.monotonic() + 9)
    scan = stored._scan

    def scan_and_move(place):
        found = scan(place)
        if place.name == "7":
            shutil.rmtree(place)
        return found

    monkeypatch.setattr(stored, "_scan", scan_and_move)
    assert store.report().labels.keys() == {"3"}


def test_workers_that_store_at_the_same_time_keep_the_bounds(folder):
    settings = Settings(feedback=str(folder), feedback_files=10)
    outcomes = []

    def work(first):
        store = Store(settings)
        for seed in range(first, first + 6):
            try:
                outcomes.append(store.add(b"png", record(seed), time.monotonic() + 60))
            except StorageFullError:
                outcomes.append("full")

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 3, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("stored") == 5
    assert len(files_in(folder)) == 10


class Watched(Store):
    """Counts the scans of the folder."""

    scans = 0

    def _entries(self):
        self.scans += 1
        return super()._entries()


def add(store, seed, label="7"):
    return store.add(b"png", record(seed, label), time.monotonic() + 9)


def test_folder_is_scanned_again_only_if_others_have_changed_it(folder):
    settings = Settings(feedback=str(folder), feedback_files=16)
    store, other = Watched(settings), Watched(settings)
    assert [add(store, seed) for seed in (0, 0, 1, 2)] == ["stored", "known", "stored", "stored"]
    assert [add(store, 2, label) for label in "1727"] == ["disputed", "known", "disputed", "known"]
    assert add(store, 3) == "stored"
    assert store.scans == 1
    assert [add(other, 0), add(other, 4), add(other, 4, "1")] == ["known", "stored", "disputed"]
    assert other.scans == 1
    # The other process has filled the folder.
    for _ in range(2):
        with pytest.raises(StorageFullError):
            add(store, 5)
    assert add(store, 4, "1") == "known"
    assert store.scans == 2
    # The owner moves a picture away.
    for file in list((folder / "7").iterdir())[:2]:
        file.rename(folder.parent / file.name)
    assert add(store, 5) == "stored"
    assert store.scans == 3
    report = store.report()
    assert sum(len(entry.files) for entry in store._known[1]) == report.files == 16
    assert sum(entry.bytes for entry in store._known[1]) == report.bytes


def test_oldest_corrections_make_room_without_a_scan_for_each(folder):
    store = Watched(Settings(feedback=str(folder), feedback_full="oldest", feedback_files=6))
    assert [add(store, seed) for seed in range(20)] == ["stored"] * 20
    assert store.scans == 1
    assert [add(store, seed) for seed in (17, 18, 19, 16)] == ["known", "known", "known", "stored"]
    assert store.report().files == 6


def test_folder_on_a_file_system_that_keeps_no_signature_is_scanned_each_time(folder, monkeypatch):
    store = Watched(Settings(feedback=str(folder)))
    monkeypatch.setattr(os, "urandom", lambda _: b"")
    assert [add(store, seed) for seed in (0, 1, 0)] == ["stored", "stored", "known"]
    assert store.scans == 3


def test_read_only_folder_is_no_fault_of_the_service(give, folder, monkeypatch, caplog):
    """Root may write everywhere, so the test makes the error."""
    assert give().status_code == 201

    def no_folder(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr(Path, "mkdir", no_folder)
    for label in "71":
        response = give(label)
        assert response.status_code == 507
        assert "cannot be stored: Read-only file system; --feedback and the folders" in response.json()["detail"]
    assert f"corrections cannot be stored in {folder}: Read-only file system" in caplog.text
    assert "Traceback" not in caplog.text


def test_corrections_that_wait_keep_no_predictions_out(folder):
    with service("--feedback", folder, "--max-concurrency", 2, "--work-timeout", 600) as (url, _):
        sent = f"{url}/feedback?label=7&consent=yes"
        with (folder / ".lock").open("ab") as lock, ThreadPoolExecutor(MAX_STORING) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = []
            for seed in range(MAX_STORING):
                waiting.append(pool.submit(httpx.post, sent, content=drawing(seed), headers=PNG, timeout=60))
                until(lambda: metric(url, "mnist_http_requests_in_flight") == len(waiting) + 1)
            for _ in range(4):
                assert httpx.post(f"{url}/predict", content=bytes(784), headers=PIXELS).status_code == 200
            assert httpx.post(sent, content=SEVEN, headers=PNG).status_code == 429
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert [future.result().status_code for future in waiting] == [201] * MAX_STORING


@pytest.mark.parametrize("suffix", ["part", "old"])
def test_half_written_correction_is_ignored_and_replaced(folder, monkeypatch, suffix):
    store = Store(Settings(feedback=str(folder)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.add(b"png", record(0), time.monotonic() + 9)
    assert files_in(folder) == []
    store.add(b"png", record(0), time.monotonic() + 9)
    [picture] = (folder / "7").glob("*.png")
    picture.rename(picture.with_name(f".{picture.name}.{suffix}"))  # as after a kill
    assert store.report().pictures == 0
    assert store.add(b"png", record(0, "1"), time.monotonic() + 9) == "stored"
    assert store.report().files == 4


def test_label_that_is_no_folder_of_a_class_is_rejected():
    assert all(map(is_folder_name, ("7", "+", "a b", "_", "ä", "tests")))
    wrong = ("", ".", "..", ".x", "__x", "a/b", "a\\b", "a\0", "Test", "x" * 300, "ä" * 200)
    assert not any(map(is_folder_name, wrong))

"""API keys, cross-origin requests, and the security headers."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from types import SimpleNamespace

import httpx
import pytest

from serving.errors import NoKeyError, SettingsError
from serving.service.keys import Keys
from serving.settings import Settings
from tests.support import PIXELS, application, service, until

BODY = bytes(784)
INFER = json.dumps({"inputs": [{"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 784}]})


def predict(client, **headers):
    return client.post("/predict", content=BODY, headers=PIXELS | headers).status_code


def unload(client, **headers):
    return client.post("/v2/repository/models/mnist/unload", headers=headers).status_code


def load(client, **headers):
    return client.post("/v2/repository/models/mnist/load", headers=headers).status_code


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def test_without_keys_anyone_may_predict_and_nobody_may_unload():
    with application() as client:
        assert predict(client) == 200
        assert unload(client) == load(client) == 403
        rejected = client.post("/v2/repository/models/mnist/load")
        assert "--admin-keys-file FILE" in rejected.json()["error"]
        assert unload(client, **bearer("")) == 403
        assert predict(client) == 200


def test_prediction_key_is_needed_to_predict_and_for_nothing_else(tmp_path):
    (tmp_path / "keys").write_text("# two keys\none\n\n  two  \n")
    with application(predict_keys_file=str(tmp_path / "keys"), predict_keys="three") as client:
        for key in ("one", "two", "three"):
            assert predict(client, **bearer(key)) == 200
            assert predict(client, **{"x-api-key": key}) == 200
        for wrong in ("", "four", "# two keys", "one,two", "On\u00e9"):
            rejected = client.post("/predict", content=BODY, headers=PIXELS | {"x-api-key": wrong.encode()})
            assert rejected.status_code == 401
            assert rejected.headers["www-authenticate"] == "Bearer"
        assert client.post("/predict", content=BODY, headers=PIXELS).status_code == 401
        infer = client.post("/v2/models/mnist/infer", content=INFER)
        assert infer.status_code == 401
        assert "send a valid prediction key as" in infer.json()["error"]
        assert client.post("/v2/models/mnist/infer", content=INFER, headers=bearer("one")).status_code == 200
        assert unload(client, **bearer("one")) == 403
        for path in ("/v2/models/stats", "/v2/models/mnist/stats", "/v2/models/mnist/versions/1/stats"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers=bearer("one")).status_code == 200
        assert client.post("/v2/repository/index").status_code == 401
        assert client.post("/v2/repository/index", headers=bearer("one")).json()[0]["state"] == "READY"
        for path in ("/v2/health/ready", "/v2", "/v2/models/mnist", "/", "/metrics", "/schema"):
            assert client.get(path).status_code == 200


def test_admin_key_is_needed_to_load_and_unload():
    with application(admin_keys="root") as client:
        assert predict(client) == 200
        assert unload(client) == unload(client, **bearer("x")) == 401
        rejected = client.post("/v2/repository/models/mnist/unload", headers=bearer("x"))
        assert "send a valid admin key as" in rejected.json()["error"]
        assert unload(client, **bearer("root")) == 200
        assert predict(client) == 503
        assert load(client, **bearer("root")) == 200
        assert predict(client) == 200


def test_admin_key_also_allows_predictions():
    with application(admin_keys="root", predict_keys="user") as client:
        assert predict(client) == 401
        assert predict(client, **bearer("user")) == predict(client, **bearer("root")) == 200
        assert unload(client, **bearer("user")) == 401


def test_keys_appear_in_no_output_or_log(tmp_path):
    assert "hush" not in repr(Settings(predict_keys="hush", admin_keys="hush"))
    with service("--predict-keys", "hush", "--access-log", "--log-level", "debug") as (url, process):
        for key in ("hush", "hushhush"):
            httpx.post(f"{url}/predict", content=BODY, headers=PIXELS | bearer(key))
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert '"status":401' in err
    assert "hush" not in out + err


@pytest.mark.parametrize("content", [None, "", "# no key\n"])
def test_key_file_without_a_key_is_rejected(tmp_path, content, run):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match="--predict-keys-file"), application(predict_keys_file=str(file)):
        pass
    failed = run("mnist-serve", "--predict-keys-file", file)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [([], False), (["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--predict-keys", "k"], False)],
)
def test_service_without_keys_warns_if_other_machines_can_reach_it(arguments, warned):
    with service(*arguments) as (_, process):
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert ("WARNING: anyone who reaches 0.0.0.0" in err) == warned


def test_other_origins_are_allowed_only_by_the_setting():
    origin = {"origin": "https://example.org"}
    preflight = origin | {"access-control-request-method": "POST"}
    with application() as client:
        assert "access-control-allow-origin" not in client.get("/v2", headers=origin).headers
        assert "access-control-allow-origin" not in client.options("/predict", headers=preflight).headers
    with application(cors_origins="https://example.org") as client:
        assert client.get("/v2", headers=origin).headers["access-control-allow-origin"] == "https://example.org"
        allowed = client.options("/predict", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        other = client.get("/v2", headers={"origin": "https://example.com"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "origins",
    [
        "https://example.org/",
        "example.org",
        "127.0.0.1:5500",
        "https://a.org,https://b.org/x",
        "https://A.org",
        "https://é.org",
    ],
)
def test_origin_that_no_browser_sends_is_reported(origins):
    with pytest.raises(SettingsError, match=r"^--cors-origins .*: must be origins as browsers send them"):
        Settings(cors_origins=origins)


@pytest.mark.parametrize(
    "origins", ["https://a.org , http://[::1]:80", "*", "null", "https://*.a.org", "chrome-extension://abc"]
)
def test_origins_of_browsers_are_a_setting(origins):
    assert Settings(cors_origins=origins).cors_origins == origins


@pytest.mark.parametrize("path", ["/", "/docs", "/predict", "/nowhere", "/v2", "/v2/nowhere", "/metrics", "/schema"])
def test_every_response_has_the_security_headers(path):
    with application() as client:
        headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert ("script-src 'self'" in headers["content-security-policy"]) == (path in ("/", "/docs"))


# Keys in settings and files


@pytest.mark.parametrize("text", [",", " , ", "\n", " ", "\ufeff", "# comment", ",#,", " # a, # b"])
@pytest.mark.parametrize("name", ["predict_keys", "admin_keys"])
def test_setting_without_a_key_does_not_leave_the_service_open(name, text):
    with pytest.raises(SettingsError, match="--" + name.replace("_", "-")), application(**{name: text}):
        pass


def digests(*keys):
    return {hashlib.sha256(key.encode()).digest() for key in keys}


def keys_of(**settings):
    return Keys(Settings(**settings))


def written(path, content, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfone\ntwo\n",
        b"# comment\none\n  # indented comment\n\ttwo\n",
        b"one\r\n\r\ntwo\r\n",
        b"  one  # of a laptop\ntwo\t#of a robot",
        b"\xef\xbb\xbf# saved by an editor\n\xef\xbb\xbfone\n\xef\xbb\xbftwo",
        b"one\n#\n##\n # \ntwo",
    ],
)
def test_comments_and_byte_order_marks_are_no_keys(tmp_path, content):
    assert keys_of(predict_keys_file=written(tmp_path / "keys", content)).prediction == digests("one", "two")


def test_number_sign_and_comma_in_a_key_of_a_file_belong_to_the_key(tmp_path):
    file = written(tmp_path / "keys", "a#b\na,b\n\u00e4\n".encode())
    assert keys_of(predict_keys_file=file).prediction == digests("a#b", "a,b", "\u00e4")


def test_keys_of_a_setting_may_be_separated_by_line_breaks():
    assert keys_of(predict_keys="one,two\nthree\n# a comment\n").prediction == digests("one", "two", "three")


@pytest.mark.parametrize(
    "content", [b"\xff\xfeo\0n\0e\0", b"\xff", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n # c\n", b"\n\n", b"#"]
)
def test_key_file_that_cannot_be_used_is_rejected(tmp_path, content):
    with pytest.raises(SettingsError, match="--admin-keys-file"):
        keys_of(admin_keys_file=written(tmp_path / "keys", content))


@pytest.mark.parametrize(("mode", "lines"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_key_file_that_everybody_can_read_gets_one_warning(tmp_path, caplog, mode, lines):
    keys = keys_of(admin_keys_file=written(tmp_path / "keys", b"one", mode))
    keys.look()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == lines
    assert all("--admin-keys-file" in line and "one" not in line.split() for line in warnings)


def test_changed_key_file_is_read_again_while_the_service_runs(tmp_path):
    file = written(tmp_path / "keys", b"old")
    with application(predict_keys_file=file) as client:
        assert (predict(client, **bearer("old")), predict(client, **bearer("new"))) == (200, 401)
        written(tmp_path / "new", b"new")
        (tmp_path / "new").replace(file)
        until(lambda: predict(client, **bearer("new")) == 200)
        assert predict(client, **bearer("old")) == 401


def test_key_file_that_cannot_be_read_again_keeps_the_former_keys(tmp_path, caplog):
    file = tmp_path / "keys"
    keys = keys_of(predict_keys_file=written(file, b"old"), admin_keys="admin")
    old = digests("old", "admin")
    for break_it in (file.unlink, file.mkdir, lambda: None):
        break_it()
        keys.look()
        keys.look()
        assert keys.prediction == old
    file.rmdir()
    for content in (b"", b"# none", b"\xff"):
        written(file, content)
        keys.look()
        keys.look()
        assert keys.prediction == old
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    # One line for each new reason, not one for each check.
    assert 4 <= len(errors) <= 6
    assert errors[0].message == (
        f"the former keys stay valid: --predict-keys-file {file}: cannot be read: No such file or directory"
    )
    assert all(record.message.count(str(file)) == 1 for record in errors)
    caplog.set_level("INFO")
    written(file, b"new")
    keys.look()
    assert caplog.messages[-1] == f"--predict-keys-file {file}: read 1 key again"
    assert keys.prediction == digests("new", "admin")


def test_key_file_that_became_a_fifo_is_not_read(tmp_path):
    file = tmp_path / "keys"
    keys = keys_of(predict_keys_file=written(file, b"old"))
    file.unlink()
    os.mkfifo(file)
    keys.look()  # This would wait until somebody writes into the FIFO.
    assert keys.prediction == digests("old")
    file.unlink()
    written(file, b"new")
    keys.look()
    assert keys.prediction == digests("new")


def test_link_to_other_keys_is_followed(tmp_path):
    # Kubernetes updates a mounted secret by replacing a link to a folder.
    for key in ("one", "two"):
        (tmp_path / key).mkdir()
        written(tmp_path / key / "keys", key.encode())
    (tmp_path / "data").symlink_to("one")
    keys = keys_of(predict_keys_file=str(tmp_path / "data" / "keys"))
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    keys.look()
    assert keys.prediction == digests("two")


def test_keys_of_a_pipe_are_read_once():
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(b"one\n")
    keys = keys_of(predict_keys_file=f"/dev/fd/{reading}")
    os.close(reading)
    keys.look()
    assert keys.prediction == digests("one")


def test_keys_can_be_handed_to_another_process(tmp_path):
    keys = keys_of(predict_keys_file=written(tmp_path / "keys", b"one"), admin_keys="two")
    assert pickle.loads(pickle.dumps(keys)).prediction == digests("one", "two")


# Keys in requests


def checks(**settings):
    keys = keys_of(**settings)
    return keys.check_prediction, keys.check_admin


def context_with(headers):
    # A client of HTTP would join headers of the same name.
    return SimpleNamespace(raw_headers=[(name.encode(), value.encode()) for name, value in headers])


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer wrong"), ("x-api-key", "right")],
        [("authorization", "Bearer right"), ("x-api-key", "wrong")],
        [("authorization", "Basic d3Jvbmc="), ("x-api-key", "right")],
        [("x-api-key", "wrong"), ("x-api-key", "right")],
        [("authorization", "Bearer wrong"), ("authorization", "Bearer right")],
        [("authorization", "bearer   right")],
        [("authorization", "BEARER right ")],
    ],
)
def test_one_right_key_is_enough(headers):
    for check in checks(predict_keys="right", admin_keys="right"):
        check(context_with(headers))


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer wrong"), ("x-api-key", "wrong")],
        [("authorization", "right")],
        [("authorization", "Basic right")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer right right")],
        [("x-api-key", "")],
        [("x-api-key", "right,wrong")],
        [("cookie", "x-api-key=right")],
        [*[("x-api-key", "wrong")] * 500, ("x-api-key", "right")],
    ],
)
def test_wrong_keys_are_rejected(headers):
    for check in checks(predict_keys="right", admin_keys="right"):
        with pytest.raises(NoKeyError):
            check(context_with(headers))


def test_key_with_any_character_is_sent_as_utf_8(tmp_path):
    with application(predict_keys_file=written(tmp_path / "keys", "schl\u00fcssel".encode())) as client:
        sent = PIXELS | {"x-api-key": "schl\u00fcssel".encode()}
        assert client.post("/predict", content=BODY, headers=sent).status_code == 200

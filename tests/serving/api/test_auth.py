"""API keys, cross-origin requests, and the security headers."""

from __future__ import annotations

import json

import pytest

from serving.errors import SettingsError
from serving.settings import Settings
from tests.support import PIXELS, application, service

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
        assert "API key" in infer.json()["error"]
        assert client.post("/v2/models/mnist/infer", content=INFER, headers=bearer("one")).status_code == 200
        assert unload(client, **bearer("one")) == 403
        for path in ("/v2/health/ready", "/v2", "/", "/metrics", "/schema"):
            assert client.get(path).status_code == 200


def test_admin_key_is_needed_to_load_and_unload():
    with application(admin_keys="root") as client:
        assert predict(client) == 200
        assert unload(client) == unload(client, **bearer("x")) == 401
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
        import httpx

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

"""--trust: only what a trusted key signed is loaded. The command model_signing accepts and rejects the same bundles."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys

import pytest

import serving
from export.folder import ExportError
from export.sign import Signer
from serving.api.app import create_app
from serving.errors import BundleError, SettingsError
from serving.models.bundle import SIGNATURE
from serving.models.model import load_folder
from serving.models.repository import Change, Repository
from serving.models.trust import Trust
from serving.server import handover
from serving.settings import RELEASE, Settings
from tests.serving.models import bundles, signing
from tests.support import ROOT, application


@pytest.fixture(scope="module", autouse=True)
def _installed():
    signing.needs_model_signing()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return signing.key_pair(tmp_path_factory.mktemp("keys") / "mine")


@pytest.fixture(scope="module")
def signed(keys, tmp_path_factory):
    """The packaged bundle as version 1 of a repository, signed."""
    models = shutil.copytree(RELEASE, tmp_path_factory.mktemp("signed") / "models")
    Signer(str(keys[0]))(models / "mnist" / "1")
    return models


@pytest.fixture
def models(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "models")


def command(folder, public):
    """Return the exit status of ``model_signing verify``, run in this process."""
    from click.testing import CliRunner
    from model_signing._cli import main

    arguments = ["--log-level", "ERROR", "verify", "key", folder, "--signature", folder / SIGNATURE]
    return CliRunner().invoke(main, list(map(str, [*arguments, "--public_key", public]))).exit_code


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped byte of the model": lambda folder: flip(folder / "model.onnx"),
    "a flipped byte of the TorchScript file": lambda folder: flip(folder / "model.torchscript.pt"),
    "a changed card": lambda folder: flip(folder / "README.md"),
    "another certified manifest": lambda folder: bundles.change_manifest(folder, temperature=2.0),
    "an added file": lambda folder: (folder / "notes.txt").write_text("mine"),
    "an added file in a folder": lambda folder: (folder / "more").mkdir() or (folder / "more" / "x").write_text("x"),
    "a missing file": lambda folder: (folder / "README.md").unlink(),
    "a file that is a link": lambda folder: (
        (folder / "README.md").rename(folder.parent / "x") and (folder / "README.md").symlink_to(folder.parent / "x")
    ),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "a stripped signature": lambda folder: (folder / SIGNATURE).unlink(),
    "an empty signature": lambda folder: (folder / SIGNATURE).write_text(""),
    "a signature that is no signature": lambda folder: (folder / SIGNATURE).write_text('{"mediaType": []}'),
    "a flipped byte of the signature": lambda folder: flip(folder / SIGNATURE),
}


def test_command_line_of_model_signing_accepts_our_bundle(signed, keys):
    folder = signed / "mnist" / "1"
    line = [sys.executable, "-m", "model_signing", "verify", "key", folder, "--signature", folder / SIGNATURE]
    done = subprocess.run([*line, "--public_key", keys[1]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert command(folder, keys[1]) == 0


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_bundle_is_rejected_by_both(models, keys, damage):
    folder = models / "mnist" / "1"
    Trust(str(keys[1])).check(folder)
    damage(folder)
    with pytest.raises(BundleError) as error:
        Trust(str(keys[1])).check(folder)
    assert len(str(error.value).splitlines()) == 1
    assert command(folder, keys[1]) != 0


def test_bundle_of_another_key_is_rejected_by_both(signed, tmp_path):
    _, other = signing.key_pair(tmp_path / "other")
    with pytest.raises(BundleError, match="is not what a trusted key signed: Key mismatch"):
        Trust(str(other)).check(signed / "mnist" / "1")
    assert command(signed / "mnist" / "1", other) != 0


def test_file_of_git_is_an_added_file_too(models, keys):
    (models / "mnist" / "1" / ".gitignore").write_text("*")
    with pytest.raises(BundleError, match=r"signed: Extra files found in model 1: \.gitignore$"):
        Trust(str(keys[1])).check(models / "mnist" / "1")


def test_reason_names_the_files_that_differ(models, keys):
    folder = models / "mnist" / "1"
    flip(folder / "golden.npz")
    flip(folder / "model.onnx")
    with pytest.raises(BundleError, match=r"signed: Hash mismatch for golden\.npz; Hash mismatch for model\.onnx$"):
        Trust(str(keys[1])).check(folder)


def test_one_of_several_trusted_keys_is_enough(signed, keys, tmp_path):
    _, other = signing.key_pair(tmp_path / "other", curve="SECP384R1")
    Trust(f"{other}, {keys[1]}").check(signed / "mnist" / "1")


def test_signature_of_the_command_line_is_accepted(models, keys):
    from click.testing import CliRunner
    from model_signing._cli import main

    folder = models / "mnist" / "1"
    (folder / SIGNATURE).unlink()
    arguments = ["--log-level", "ERROR", "sign", "key", folder, "--signature", folder / SIGNATURE]
    assert CliRunner().invoke(main, list(map(str, [*arguments, "--private_key", keys[0]]))).exit_code == 0
    Trust(str(keys[1])).check(folder)


def test_certificate_and_password_work(models, tmp_path):
    key, certificate, authority = signing.certified_key(tmp_path)
    folder = models / "mnist" / "1"
    Signer(str(key), certificate)(folder)
    Trust(str(authority)).check(folder)
    (tmp_path / "foreign").mkdir()
    foreign = signing.certified_key(tmp_path / "foreign")[2]
    with pytest.raises(BundleError, match="trusted"):
        Trust(str(foreign)).check(folder)
    private, public = signing.key_pair(tmp_path / "locked", b"secret")
    Signer(str(private), password="secret")(folder)
    Trust(str(public)).check(folder)
    for password in (None, "wrong"):
        with pytest.raises(ExportError, match=r"--sign .*locked\.pem: .*--sign-password"):
            Signer(str(private), password=password)


@pytest.mark.parametrize(
    "content", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", None, "rsa", "private"]
)
def test_setting_that_names_no_key_is_rejected(tmp_path, keys, content):
    path = tmp_path / "key.pem"
    if content == "rsa":
        path = signing.rsa_pair(path)[1]
    elif content == "private":
        path = keys[0]
    elif content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=rf"^--trust {path}: .*") as error:
        Trust(str(path))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", [",", " ", " , "])
def test_setting_that_names_nobody_does_not_trust_everybody(text):
    with pytest.raises(SettingsError, match=rf"^--trust {text}: holds no entry; leave the setting out instead$"):
        Trust.of(text)
    assert Trust.of("") is None


@pytest.mark.parametrize("text", ["sigstore:", "sigstore:me", "sigstore:me@", "sigstore:@issuer"])
def test_half_an_identity_of_sigstore_is_rejected(text):
    with pytest.raises(SettingsError, match="IDENTITY@ISSUER"):
        Trust(text)


def test_missing_package_is_named(monkeypatch, keys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(SettingsError, match=r"pip install model-signing pyopenssl"):
        Trust(str(keys[1]))
    with pytest.raises(ExportError, match=r"pip install model-signing pyopenssl"):
        Signer(str(keys[0]))


def test_untrusted_version_is_rejected_logged_and_counted_and_the_old_one_goes_on(models, keys, caplog):
    with application(repository=models, trust=str(keys[1]), poll=0) as client:
        service = client.app.state.service
        # It has the signature of version 1.
        bundles.change_manifest(shutil.copytree(models / "mnist" / "1", models / "mnist" / "2"), version=2)
        with caplog.at_level(logging.ERROR, "serving"):
            service.scan()
        assert "rejected model mnist version 2: " in caplog.text
        assert "is not what a trusted key signed" in caplog.text
        assert client.get("/certificate").json()["version"] == 1
        index = client.post("/v2/repository/index").json()
        assert [(entry["version"], entry["state"]) for entry in index] == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert 'mnist_model_rejected_total{model="mnist",version="2"} 1.0' in client.get("/metrics").text

        Signer(str(keys[0]))(models / "mnist" / "2")
        service.scan()
        assert client.get("/certificate").json()["version"] == 2


def test_loaded_version_stays_when_its_signature_is_stripped(models, keys):
    repository = Repository(models, 2, trust=Trust(str(keys[1])))
    assert repository.scan() == [Change("loaded", "mnist", "1")]
    (models / "mnist" / "1" / SIGNATURE).unlink()
    assert repository.scan() == [Change("rejected", "mnist", "1")]
    assert repository.get("mnist").version == "1"
    assert repository.scan() == []


def test_service_does_not_start_without_a_trusted_version(tmp_path, keys):
    with pytest.raises(BundleError, match=r"has no signature model\.sig"):
        create_app(Settings(trust=str(keys[1])))
    with pytest.raises(SettingsError, match=r"none\.pem: No such file or directory"):
        create_app(Settings(trust=str(tmp_path / "none.pem")))


def test_workers_find_the_keys_in_any_folder(keys, monkeypatch):
    monkeypatch.chdir(keys[1].parent)
    names = f"{keys[1].name}, sigstore:me@issuer"
    assert handover.lasting(Settings(trust=names)).trust == f"{keys[1]},sigstore:me@issuer"
    assert handover.lasting(Settings()).trust == ""


def test_hostile_signatures_end_in_one_line_each(models, keys):
    folder = models / "mnist" / "1"
    good = json.loads((folder / SIGNATURE).read_text())
    texts = ["[" * 100_000, "null", "{}", "\xff", json.dumps(good | {"dsseEnvelope": {}})]
    texts.append(json.dumps(good | {"dsseEnvelope": good["dsseEnvelope"] | {"signatures": []}}))
    texts.append(json.dumps(good | {"verificationMaterial": None}))
    for text in texts:
        (folder / SIGNATURE).write_text(text)
        with pytest.raises(BundleError) as error:
            Trust(str(keys[1])).check(folder)
        assert len(str(error.value)) < 1000
    with (folder / SIGNATURE).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="must be at most"):
        Trust(str(keys[1])).check(folder)


SWAPS = {
    "the model": lambda folder: flip(folder / "model.onnx"),
    "the golden logits": lambda folder: flip(folder / "golden.npz"),
    "the manifest": lambda folder: bundles.change_manifest(folder, temperature=2.0),
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_file_that_changes_while_it_is_verified_is_not_used(models, keys, monkeypatch, swap):
    folder, good = models / "mnist" / "1", signed_files(models / "mnist" / "1")
    check = Trust.check

    def check_and_swap(trust, folder):
        """Verify the good files. The files before and after that are others."""
        others = signed_files(folder)
        for name, content in good.items():
            (folder / name).write_bytes(content)
        digests = check(trust, folder)
        for name, content in others.items():
            (folder / name).write_bytes(content)
        swap(folder)
        return digests

    monkeypatch.setattr(Trust, "check", check_and_swap)
    if swap is SWAPS["the manifest"]:
        swap(folder)
    with pytest.raises(BundleError, match="altered while it was loaded"):
        load_folder(folder, Trust(str(keys[1])))


def signed_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_signature_with_a_second_list_of_files_counts_for_none(models, keys):
    folder = models / "mnist" / "1"
    text = (folder / SIGNATURE).read_text()
    good = json.loads(text)
    statement = json.loads(base64.b64decode(good["dsseEnvelope"]["payload"]))
    for resource in statement["predicate"]["resources"]:
        resource["digest"] = "0" * 64
    false = good["dsseEnvelope"] | {"payload": base64.b64encode(json.dumps(statement).encode()).decode()}
    right = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    for more in (f'"dsse_envelope": {json.dumps(false)}, ', f'"dsseEnvelope": {json.dumps(false)}, '):
        (folder / SIGNATURE).write_text("{" + more + text.strip()[1:])
        assert Trust(str(keys[1])).check(folder)["manifest.json"] == right
    (folder / SIGNATURE).write_text(text.strip()[:-1] + f', "dsseEnvelope": {json.dumps(false)}' + "}")
    with pytest.raises(BundleError):
        Trust(str(keys[1])).check(folder)


def test_python_loads_only_what_a_trusted_key_signed(signed, keys, tmp_path):
    _, stranger = signing.key_pair(tmp_path / "stranger")
    for path in signed, signed / "mnist" / "1":
        assert serving.load(path, trust=str(keys[1])).predict(ROOT / "tests" / "seven.png")[0].label == "7"
        with pytest.raises(BundleError):
            serving.load(path, trust=str(stranger))

"""A malformed folder of any kind is rejected with a reason, and the other models stay in service."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import httpx
import numpy as np
import pytest

from serving import files
from serving.models import bundle, classifier, golden, model, repository
from serving.models.repository import Change
from tests.serving.models import graphs
from tests.serving.models.bundles import (
    PACKAGED,
    certify,
    change_golden,
    change_manifest,
    manifest_files,
    publish,
    replace,
    repository_of,
)
from tests.support import PIXELS, ROOT, application, service, until


def sparse(path, size):
    """Make a file of ``size`` bytes that takes no space on the disk."""
    with path.open("wb") as file:
        file.truncate(size)


def archive(**arrays):
    """Return a zip file with these contents of npy files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(shape, dtype="|u1"):
    """Return the header of an npy file, without its numbers."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def manifest_text(change):
    """Return a function that changes the text of the manifest of a bundle."""

    def damage(folder):
        text = (folder / bundle.MANIFEST).read_text()
        changed = change(text)
        assert changed != text
        (folder / bundle.MANIFEST).write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    return damage


def with_number(name, number):
    """Return a change that puts ``number`` in the place of the number called ``name``."""
    return manifest_text(lambda text: re.sub(rf'("{name}": *)[\d.]+', rf"\g<1>{number}", text))


def with_threshold(number):
    """Return a change that sets the highest novelty score to ``number``."""
    return manifest_text(lambda text: re.sub(r'("novelty": *\{\s*"threshold": *)[-+.e\d]+', rf"\g<1>{number}", text))


def manifest_members(**members):
    return lambda folder: change_manifest(folder, **members)


def in_place(name, make):
    """Return a function that puts something else in the place of a file."""

    def damage(folder):
        (folder / name).unlink()
        make(folder / name)

    return damage


def name_a_file(name):
    def damage(folder):
        files = manifest_files(folder)
        change_manifest(folder, files=files | {name: files[bundle.ONNX]})

    return damage


def declare_large(folder):
    size = bundle.MAX_BUNDLE_BYTES * 10
    sparse(folder / bundle.TORCHSCRIPT, size)
    change_manifest(folder, files=manifest_files(folder) | {bundle.TORCHSCRIPT: {"sha256": "", "bytes": size}})


IMAGES = np.load(PACKAGED / bundle.GOLDEN)["images"]
LOGITS = np.load(PACKAGED / bundle.GOLDEN)["logits"]

GOLDEN = {
    "empty": (lambda folder: replace(folder, bundle.GOLDEN, b""), "BadZipFile"),
    "no zip file": (lambda folder: replace(folder, bundle.GOLDEN, b"PK" * 1000), "BadZipFile"),
    "empty zip file": (lambda folder: replace(folder, bundle.GOLDEN, archive()), "no array 'images'"),
    "no logits": (lambda folder: change_golden(folder, logits=None), "no array 'logits'"),
    "float images": (lambda folder: change_golden(folder, images=IMAGES / 255), "must be uint8"),
    "double logits": (lambda folder: change_golden(folder, logits=LOGITS.astype(float)), "must be float32"),
    "objects": (lambda folder: change_golden(folder, images=np.array([{}, []], object)), "must be uint8"),
    "texts": (lambda folder: change_golden(folder, logits=np.array(["7"])), "must be float32"),
    "flat": (lambda folder: change_golden(folder, images=IMAGES.reshape(-1, 784)), "must be uint8"),
    "a number": (lambda folder: change_golden(folder, images=np.uint8(3)), "must be uint8"),
    "no images": (lambda folder: change_golden(folder, images=IMAGES[:0], logits=LOGITS[:0]), "at least one"),
    "too few logits": (lambda folder: change_golden(folder, logits=LOGITS[:-1]), "logits for 39"),
    "too few classes": (lambda folder: change_golden(folder, logits=LOGITS[:, :1]), "must be float32"),
    "no such shape": (
        lambda folder: replace(folder, bundle.GOLDEN, archive(images=npy((10**11, 28, 28)), logits=npy((1, 10)))),
        "in full",
    ),
    "negative shape": (
        lambda folder: replace(folder, bundle.GOLDEN, archive(images=npy((-1, 28, 28)), logits=npy((1, 10)))),
        "cannot be loaded",
    ),
    "no npy": (lambda folder: replace(folder, bundle.GOLDEN, archive(images=b"x" * 99)), "cannot be loaded"),
    "npz bomb": (
        lambda folder: replace(folder, bundle.GOLDEN, archive(images=bytes(golden.MAX_BYTES + 1))),
        f"must be at most {golden.MAX_BYTES}",
    ),
    "many entries": (
        lambda folder: replace(folder, bundle.GOLDEN, archive(**{f"x{i}": b"" for i in range(1000)})),
        "more than 16 entries",
    ),
}

MANIFEST = {
    "empty": (manifest_text(lambda _: ""), "not a valid manifest"),
    "not UTF-8": (manifest_text(lambda text: text.encode("utf-16")), "not a valid manifest"),
    "not UTF-8 inside": (manifest_text(lambda text: text.encode().replace(b"adamw", b"\xff")), "not a valid manifest"),
    "nested deeply": (
        manifest_text(lambda text: text.replace('"adamw"', "[" * 10_000 + "]" * 10_000, 1)),
        "not a valid manifest",
    ),
    "nested objects": (manifest_text(lambda text: text.replace('"adamw"', '{"a":' * 60 + "1" + "}" * 60, 1)), "levels"),
    "not an object": (manifest_text(lambda text: f"[{text}]"), "not a valid manifest"),
    "huge number": (with_number("parameters", "9" * 5000), "not a valid manifest"),
    "infinite number": (with_number("seconds", "1e999"), "not a finite number"),
    "infinite threshold": (with_threshold("1e999"), "not a finite"),
    "threshold that is no number": (
        with_threshold("NaN"),
        "not a finite number",
    ),
    "absurd threshold": (with_threshold("-1e300"), "valid manifest"),
    "absurd tolerance": (manifest_text(lambda text: text.replace("0.0002", "1e30")), "not a valid manifest"),
    "negative tolerance": (manifest_text(lambda text: text.replace("0.0002", "-1")), "not a valid manifest"),
    "duplicate key": (manifest_text(lambda text: text.replace("{", '{"format": 1,', 1)), "'format' comes twice"),
    "lone surrogate": (manifest_text(lambda text: text.replace('"adamw"', '"\\ud800"', 1)), "not a valid manifest"),
    "NUL in a file name": (name_a_file("a\0b"), "outside its folder"),
    "parent as a file": (name_a_file(".."), "outside its folder"),
    "no file name": (name_a_file(""), "outside its folder"),
    "long file name": (name_a_file("x" * 5000), "other/1/xxx"),
    "surrogate in a file name": (name_a_file("\udcff"), "not a valid manifest"),
    "no labels": (manifest_members(labels=[]), "not a valid manifest"),
    "a million labels": (manifest_members(labels=["7"] * 10**6), "more than"),
    "many labels": (manifest_members(labels=["7"] * 100_000), "not a valid manifest"),
    "long labels": (manifest_members(labels=["7" * 50_000] * 10), "not a valid manifest"),
    "accuracy in words": (manifest_members(result={"test": {"accuracy": "good"}}), "result.test.accuracy"),
    "no result": (manifest_members(result={"test": None}), "result.test.accuracy"),
    "name with a line break": (manifest_members(name="other\n"), "not a valid manifest"),
    "huge version": (manifest_members(version=10**30), "was it renamed"),
    "huge file": (declare_large, "must be at most"),
}

GRAPHS = {
    "another model": (graphs.other_model, "does not reproduce"),
    "float64": (graphs.double_precision, "this service needs"),
    "endless loop": (graphs.endless_loop, "did not finish"),
    "memory bomb": (graphs.memory_bomb, "cannot be loaded"),
    "growing loop": (graphs.growing_loop, "cannot be loaded"),
    "one row for all": (graphs.one_row_for_all, "of the shape"),
    "empty": (lambda: b"", "cannot be loaded"),
    "text": (lambda: b"x" * 1000, "cannot be loaded"),
}
ONNX = {
    name: (lambda folder, make=make: replace(folder, bundle.ONNX, make()), reason)
    for name, (make, reason) in GRAPHS.items()
}

PLACES = {
    f"{kind} as {name}": (in_place(name, make), reason)
    for name in (bundle.MANIFEST, bundle.GOLDEN, bundle.ONNX, bundle.TORCHSCRIPT)
    for kind, make, reason in (
        ("FIFO", os.mkfifo, "not a regular file"),
        ("folder", lambda path: path.mkdir(), "not a regular file"),
        ("device", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        ("link to itself", lambda path: path.symlink_to(path), "symbolic links"),
        ("large file", lambda path: sparse(path, 10 * 10**9), "10000000000 bytes"),
    )
}

DAMAGES = [
    pytest.param(damage, reason, id=f"{part}: {name}")
    for part, damages in (("golden", GOLDEN), ("manifest", MANIFEST), ("onnx", ONNX), ("file", PLACES))
    for name, (damage, reason) in damages.items()
]


@pytest.fixture
def repo(models, monkeypatch):
    """A repository with a sound model. A test publishes the model ``other`` beside it."""
    monkeypatch.setattr(classifier, "VERIFY_SECONDS", 0.5)
    return repository_of(models)


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_malformed_bundle_is_rejected_and_the_other_model_is_loaded(models, repo, damage, reason):
    damage(publish(models, 1, name="other"))
    assert repo.scan() == [Change("loaded", "mnist", "1"), Change("rejected", "other", "1")]
    assert repo.scan() == []
    entry = repo.index()[1]
    assert (entry.name, entry.state) == ("other", "UNAVAILABLE")
    assert reason in entry.reason
    assert str(models) not in entry.reason
    assert len(entry.reason) < 1000
    assert "\n" not in entry.reason


@pytest.mark.parametrize("make", [graphs.memory_bomb, graphs.growing_loop])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process by what it has")
def test_model_that_asks_for_gigabytes_gets_no_more_than_its_limit(models, make):
    """Without the limit, the system would kill the service at each start."""
    publish(models, 1, name="other", damage=lambda folder: replace(folder, bundle.ONNX, make()))
    program = f"""if True:
        import re, resource
        from pathlib import Path
        from tests.serving.models.bundles import repository_of
        before = resource.getrlimit(resource.RLIMIT_DATA)
        changes = repository_of(Path({str(models)!r})).scan()
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
        # getrusage() would also count the memory of the process that started this one.
        peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
        print([change.kind for change in changes], int(peak) // 1024)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    kinds, _, megabytes = done.stdout.rpartition(" ")
    assert kinds == "['loaded', 'rejected']"
    assert int(megabytes) < 400


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.write_bytes(b""), lambda path: path.symlink_to(path)])
def test_something_else_in_place_of_a_version_is_rejected(models, repo, make):
    publish(models, 1, name="other")
    make(models / "other" / "2")
    assert Change("rejected", "other", "2") in repo.scan()
    assert repo.get("other").version == "1"


@pytest.mark.parametrize("location", ["weights", "./weights", "{absolute}", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_weights_in_another_file_are_never_read(models, tmp_path, repo, monkeypatch, location):
    """The manifest does not certify another file, wherever it is."""
    folder = publish(models, 1, name="other")
    for place in (tmp_path, folder):
        (place / "weights").write_bytes(bytes(784 * 10 * 4))
    monkeypatch.chdir(tmp_path)
    replace(folder, bundle.ONNX, graphs.external_weights(location.format(absolute=folder / "weights")))
    repo.scan()
    [entry] = [entry for entry in repo.index() if entry.name == "other"]
    assert "model.onnx cannot be loaded" in entry.reason
    assert str(tmp_path) not in entry.reason


@pytest.mark.parametrize("step", ["read", "Classifier"])
def test_folder_that_is_removed_while_it_loads_is_rejected(models, repo, monkeypatch, step):
    folder = publish(models, 1, name="other")
    owner = model if step == "Classifier" else bundle
    original = getattr(owner, step)

    def remove_after(path, *content):
        result = original(path, *content)
        if "other" in str(path):
            shutil.rmtree(folder)
        return result

    monkeypatch.setattr(owner, step, remove_after)
    assert Change("rejected", "other", "1") in repo.scan()
    assert repo.scan() == []
    assert repo.get("mnist").version == "1"
    (models / "other").rmdir()
    repo.scan()
    assert [entry.name for entry in repo.index()] == ["mnist"]


def test_any_exception_of_a_library_rejects_the_version(models, repo, monkeypatch, caplog):
    publish(models, 1, name="other")
    original = repository.load_folder

    def fail(path, trust):
        if "other" in str(path):
            change_golden(path, images=None)
            monkeypatch.setattr(golden.zipfile, "ZipFile", lambda _: 1 / 0)
        return original(path, trust)

    monkeypatch.setattr(repository, "load_folder", fail)
    assert Change("rejected", "other", "1") in repo.scan()
    assert f"{models}/other/1 cannot be loaded: ZeroDivisionError" in caplog.text


def test_digest_of_a_large_file_is_computed_in_pieces(tmp_path):
    sparse(tmp_path / "large", 3 * files.CHUNK + 1)
    described = bundle.file_of(tmp_path / "large")
    assert described.bytes == 3 * files.CHUNK + 1
    assert described.sha256 == hashlib.sha256(bytes(described.bytes)).hexdigest()


def test_service_starts_beside_malformed_models_and_sees_new_ones(models):
    """No published folder ends the search for new versions."""
    damages = {"golden": GOLDEN["empty"], "utf": MANIFEST["not UTF-8"], "deep": MANIFEST["nested deeply"]}
    damages |= {"nul": MANIFEST["NUL in a file name"], "fifo": PLACES["FIFO as model.onnx"]}
    for name, (damage, _) in damages.items():
        damage(publish(models, 1, name=name))
    with (
        service("--repository", models, "--poll", "0.05") as (url, process),
        httpx.Client(base_url=url, timeout=60) as client,
    ):

        def reason_of(name, version):
            entries = client.post("/v2/repository/index").json()
            return next((e["reason"] for e in entries if (e["name"], e["version"]) == (name, str(version))), "")

        for version, (name, (damage, reason)) in enumerate(damages.items(), 2):
            publish(models, version, name=name, damage=damage)
            until(lambda name=name, version=version, reason=reason: reason in reason_of(name, version))
            assert client.post(f"/predict?model={name}", content=bytes(784), headers=PIXELS).status_code == 503
        publish(models, 2)
        until(lambda: client.get("/v2/models/mnist").json()["versions"] == ["1", "2"])
        metrics = client.get("/metrics").text
        assert 'mnist_model_rejected_total{model="nul",version="5"} 1.0' in metrics
        assert "mnist_background_failures_total{" not in metrics
        assert process.poll() is None


@pytest.mark.parametrize(
    "damage",
    [
        GOLDEN["empty"][0],
        MANIFEST["not UTF-8"][0],
        MANIFEST["nested deeply"][0],
        MANIFEST["accuracy in words"][0],
        PLACES["FIFO as manifest.json"][0],
        lambda folder: replace(folder, bundle.ONNX, graphs.one_row_for_all()),
    ],
)
def test_malformed_default_model_ends_the_command_with_one_line(models, run, damage):
    damage(models / "mnist" / "1")
    for command, *arguments in (("mnist-serve",), ("mnist-predict", "tests/seven.png")):
        failed = run(command, "--repository", models, *arguments)
        assert failed.returncode == 1
        assert failed.stderr.splitlines()[-1].startswith(f"Error: {models}/mnist/1")
        assert "Traceback" not in failed.stderr
        assert failed.stdout == ""


def test_responses_show_no_path_of_the_server(models, tmp_path):
    replace(publish(models, 2), bundle.ONNX, b"rubbish")
    publish(models, 3)
    (models / "mnist" / "3" / bundle.GOLDEN).unlink()
    publish(models, 1, name="other")
    replace(models / "other" / "1", bundle.GOLDEN, b"")
    (models / "gone").symlink_to(tmp_path / "nowhere")
    with application(repository=models) as client:
        texts = [
            client.post("/v2/repository/index").text,
            *(client.get(f"/v2/models/{name}").text for name in ("other", "gone", "mnist/versions/2")),
            client.post("/predict?model=other", content=bytes(784), headers=PIXELS).text,
            client.post("/predict?model=mnist&version=3", content=bytes(784), headers=PIXELS).text,
            client.get("/certificate?model=other").text,
        ]
    for text in texts:
        assert "mnist/" in text or "other/" in text or "gone" in text
        assert str(tmp_path) not in text
    assert json.loads(texts[1])["error"].startswith("model 'other' version 1 is unavailable: other/1 cannot be loaded")


def test_changed_file_loads_once_it_is_certified(models, repo):
    """Check the helpers of this file: an unchanged file that is certified again still loads."""
    certify(publish(models, 1, name="other"), bundle.GOLDEN)
    assert repo.scan() == [Change("loaded", "mnist", "1"), Change("loaded", "other", "1")]

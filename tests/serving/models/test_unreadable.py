"""Loaded versions stay in service while their files cannot be read, and replaced files are noticed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from serving import files
from serving.errors import ModelNotFoundError, ModelUnavailableError
from serving.models import bundle, disk
from serving.models.repository import Change, Entry
from serving.settings import RELEASE
from tests.serving.models.bundles import PACKAGED, publish, repository_of
from tests.support import PIXELS, application, mode_0


@pytest.fixture
def models():
    """A copy of the packaged repository that another user may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield shutil.copytree(RELEASE, Path(folder) / "models")


@pytest.fixture
def repository(models):
    repository = repository_of(models)
    assert repository.scan() == [Change("loaded", "mnist", "1")]
    return repository


def assert_served_on(repository, reason):
    """Check that the model is served after two scans, and that the index gives the reason."""
    before = repository.get("mnist")
    changes = [change.kind for _ in range(2) for change in repository.scan()]
    assert changes in ([], ["rejected"])
    assert repository.get("mnist") is before
    [entry] = repository.index()
    assert entry.state == "READY"
    assert reason in entry.reason


@pytest.mark.parametrize("path", ["", "mnist", "mnist/1"])
def test_model_whose_folder_may_not_be_read_stays_in_service(models, repository, caplog, path):
    with mode_0(models / path):
        assert_served_on(repository, "Permission denied")
    assert caplog.text.count("Permission denied") == 1
    repository.scan()
    assert repository.index() == [Entry("mnist", "1", "READY")]
    assert repository.is_readable


@pytest.mark.parametrize("path", ["", "mnist", "mnist/1"])
@pytest.mark.parametrize("kind", ["dangling link", "link to itself", "file", "FIFO"])
def test_model_with_something_else_in_its_place_stays_in_service(models, repository, kind, path):
    place = models / path
    place.rename(models.parent / "away")
    if kind == "file":
        place.write_text("not a folder")
    elif kind == "FIFO":
        os.mkfifo(place)
    else:
        place.symlink_to(place if kind == "link to itself" else models.parent / "nowhere")
    assert_served_on(repository, "cannot ")
    place.unlink()
    (models.parent / "away").rename(place)
    repository.scan()
    assert repository.index() == [Entry("mnist", "1", "READY")]


@pytest.mark.parametrize("function", ["names", "versions"])
def test_error_of_the_disk_is_logged_once_and_counted(models, monkeypatch, caplog, function):
    caplog.set_level("INFO", "serving")
    with application(repository=models, poll=0.0) as client:
        service = client.app.state.service

        def fail(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        with monkeypatch.context() as patch:
            patch.setattr(disk, function, fail)
            for _ in range(3):
                service.scan()
        assert client.post("/predict", content=bytes(784), headers=PIXELS).status_code == 200
        [entry] = client.post("/v2/repository/index").json()
        assert entry["state"] == "READY"
        assert "Input/output error" in entry["reason"]
        assert str(models) not in entry["reason"]
        assert "mnist_repository_errors_total 3.0" in client.get("/metrics").text
        assert caplog.text.count("the loaded versions stay in service") == 1
        service.scan()
        assert caplog.text.count("this error has passed: ") == 1
        assert "mnist_repository_errors_total 3.0" in client.get("/metrics").text


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EREMOTEIO, errno.ENOENT])
def test_version_that_could_not_be_read_for_a_moment_is_tried_again(models, repository, monkeypatch, number):
    """The files themselves stay the same, as when a server of files refuses a user for a moment."""
    publish(models, 2)

    def fail(path, limit):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(files, "read", fail)
        assert repository.scan() == [Change("rejected", "mnist", "2")]
        assert repository.scan() == []
    assert repository.scan() == [Change("loaded", "mnist", "2")]


def test_version_that_could_not_be_read_is_forgotten_when_it_is_gone(models, repository):
    publish(models, 2)
    with mode_0(models / "mnist" / "2"):
        assert repository.scan() == [Change("rejected", "mnist", "2")]
        assert repository.rejected() == [("mnist", "2")]
    shutil.rmtree(models / "mnist" / "2")
    assert repository.scan() == []
    assert repository.rejected() == []


def test_model_that_was_never_readable_is_unavailable_not_absent(models, repository):
    (models / "gone").symlink_to(models / "nowhere")
    (models / "README").write_text("Only folders are models.")
    repository.scan()
    with pytest.raises(ModelUnavailableError, match="gone cannot be read: No such file"):
        repository.get("gone")
    with pytest.raises(ModelUnavailableError, match="gone cannot be read"):
        repository.get("gone", "3")
    with pytest.raises(ModelNotFoundError):
        repository.get("README")
    (models / "gone").unlink()
    repository.scan()
    with pytest.raises(ModelNotFoundError):
        repository.get("gone")
    assert repository.is_readable


def test_model_that_is_really_gone_is_dropped(models, repository):
    publish(models, 1, name="other")
    repository.scan()
    shutil.rmtree(models / "other")
    assert repository.scan() == [Change("dropped", "other", "1")]
    shutil.rmtree(models / "mnist" / "1")
    assert repository.scan() == [Change("dropped", "mnist", "1")]
    assert repository.index() == []


def test_model_is_unloaded_while_its_folder_cannot_be_read(models, repository):
    models.rename(models.parent / "away")
    assert repository.unload("mnist") == [Change("dropped", "mnist", "1")]
    [entry] = repository.index()
    assert entry == Entry("mnist", "1", "UNAVAILABLE", "unloaded")
    repository.load("mnist")
    with pytest.raises(ModelUnavailableError, match="the repository cannot be read"):
        repository.get("mnist")


def copy_with_times(source, target):
    """Copy a folder with all its times, also that of the folder. All sizes and times are equal then."""
    shutil.copytree(source, target)
    for path in [source, *source.iterdir()]:
        status = path.stat()
        os.utime(target / path.relative_to(source), ns=(status.st_atime_ns, status.st_mtime_ns))
    return target


@pytest.mark.parametrize("level", ["repository", "model", "version", "files"])
def test_link_to_another_folder_with_equal_sizes_and_times_is_noticed(tmp_path, level):
    """Kubernetes and many deployment scripts publish in this way."""
    parts = {"repository": "", "model": "mnist", "version": "mnist/1", "files": "mnist/1"}
    link = tmp_path / "models" / parts[level]
    link.parent.mkdir(parents=True, exist_ok=True)
    folders = [copy_with_times(PACKAGED, tmp_path / name / "mnist" / "1") for name in ("blue", "green")]
    manifest = folders[1] / bundle.MANIFEST
    time = manifest.stat().st_mtime_ns
    manifest.write_text(manifest.read_text().replace('"0"', '"O"'))
    os.utime(manifest, ns=(time, time))

    def point_to(name):
        target = tmp_path / name / parts[level]
        if level == "files":
            link.mkdir(exist_ok=True)
            for file in target.iterdir():
                (link / "new").symlink_to(file)
                (link / "new").rename(link / file.name)
        else:
            (tmp_path / "new").symlink_to(target)
            (tmp_path / "new").rename(link)

    point_to("blue")
    repository = repository_of(tmp_path / "models")
    repository.scan()
    assert repository.get("mnist").labels[0] == "0"
    assert repository.scan() == []
    point_to("green")
    assert repository.scan() == [Change("loaded", "mnist", "1")]
    assert repository.get("mnist").labels[0] == "O"
    assert repository.scan() == []


def test_file_that_is_overwritten_with_equal_size_and_time_is_noticed(models, repository):
    path = models / "mnist" / "1" / bundle.ONNX
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert repository.scan() == [Change("rejected", "mnist", "1")]
    assert "was altered" in repository.index()[0].reason

"""Commands on network shares and mounts of object stores, which refuse some of what a local disk does."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

import export
import training
from serving import shares
from serving.batch.inputs import Inputs
from serving.batch.job import Job
from serving.batch.results import Results, form_of
from serving.batch.rows import Csv, Row, Rows
from serving.errors import ResultsError, RolloutError
from serving.feedback.records import Answer, ModelVersion, Record
from serving.feedback.store import Store
from serving.models.rollout import RolloutState
from serving.models.rollout_files import RolloutFiles
from serving.settings import RELEASE, Settings
from tests.training.conftest import NoPlots, no_plots  # noqa: F401 (a fixture)
from tests.training.support import FAST, bar
from training import checkpoint
from training.checkpoint import write_atomically

# What a share refuses, and with which error.
REFUSALS = [
    *(("fsync", number) for number in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)),
    *(("flock", number) for number in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL)),
    *(("chmod", errno.EPERM), ("link", errno.EPERM), ("utime", errno.EPERM)),
    *(("replace", number) for number in (errno.EEXIST, errno.EPERM, errno.EACCES)),
    ("all of it", errno.ENOTSUP),
]
WORDS = {"fsync": "cannot sync", "flock": "has no locks", "replace": "cannot replace a file"}


@pytest.fixture
def share(monkeypatch, request):
    """A process that sees its disk as such a share. The value is what the share refuses."""
    refused, number = request.param

    def refuse(*arguments, **_):
        raise OSError(number, os.strerror(number), arguments[0] if isinstance(arguments[0], str) else None)

    def rename(new, path, original=os.rename):
        if os.path.lexists(path):
            raise OSError(number, os.strerror(number), new, None, path)
        original(new, path)

    functions = {name: [(os, name, refuse)] for name in ("fsync", "link", "utime")}
    functions["chmod"] = [(os, "chmod", refuse), (os, "fchmod", refuse)]
    functions["flock"] = [(fcntl, "flock", refuse), (fcntl, "lockf", refuse)]
    functions["replace"] = [(os, "rename", rename), (os, "replace", rename)]
    for each in functions.values() if refused == "all of it" else [functions[refused]]:
        for place, name, function in each:
            monkeypatch.setattr(place, name, function)
    for module in (checkpoint, shares):
        monkeypatch.setattr(module, "_told", set())
    return refused


def check_told(share, printed, possible):
    """Check that what the share refuses was told once, if it is one of the ``possible`` operations."""
    expected = [name for name in WORDS if share in (name, "all of it") and name in possible]
    for name, words in WORDS.items():
        assert printed.count(f"is on a file system that {words}") == expected.count(name), printed


each_share = pytest.mark.parametrize("share", REFUSALS, indirect=True, ids=lambda refusal: "-".join(map(str, refusal)))


@each_share
def test_file_is_written_and_replaced(share, tmp_path, capfd):
    for content in (b"one", b"two", b"three"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    check_told(share, capfd.readouterr().err, ["fsync", "replace"])


def write_in_the_service(path, content):
    with shares.writing(path) as file:
        file.write(content)


@pytest.mark.parametrize("write", [write_atomically, write_in_the_service])
@pytest.mark.parametrize("share", [("replace", errno.EEXIST)], indirect=True)
def test_old_file_stays_if_the_new_one_cannot_be_renamed(share, write, tmp_path, monkeypatch):
    write(tmp_path / "file", b"old")
    rename = os.rename

    def fail(new, path):
        if not os.fspath(new).endswith(".old") and os.fspath(path).endswith("file"):
            raise OSError(errno.EIO, "Input/output error")
        rename(new, path)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write(tmp_path / "file", b"new")
    assert write is not write_atomically or caught.value.filename == str(tmp_path / "file")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


@pytest.mark.parametrize("share", [("replace", errno.EEXIST)], indirect=True)
def test_file_that_a_killed_service_has_set_aside_is_replaced(share, tmp_path):
    write_in_the_service(tmp_path / "file", b"old")
    (tmp_path / ".file.old").write_bytes(b"older")
    write_in_the_service(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"new"}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("victim")])
def test_link_or_fifo_under_the_name_of_the_new_file_is_not_followed(make, tmp_path):
    (tmp_path / "victim").write_bytes(b"victim")
    make(tmp_path / ".file.part")
    write_in_the_service(tmp_path / "file", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"new", "victim": b"victim"}
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("write", [write_atomically, write_in_the_service])
def test_error_is_that_of_the_write_if_the_new_file_cannot_be_removed_either(write, tmp_path, monkeypatch):
    def fail(number):
        def refuse(*_, **__):
            raise OSError(number, os.strerror(number))

        return refuse

    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    monkeypatch.setattr(os, "unlink", fail(errno.EPERM))
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "file", b"new")


@pytest.fixture(scope="module")
def lines():
    """Pictures of lines in two directions."""
    images = [bar(angle, variant) for angle in (0, 90) for variant in range(30)]
    return {"images": np.stack(images), "labels": np.repeat(["|", "-"], 30)}


@pytest.fixture(scope="module")
def finished(lines, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.loop.train.PlotProcess", NoPlots)
        training.train(FAST, lines, folder, progress=False)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that folder, made before the disk becomes a share."""
    return shutil.copytree(finished, tmp_path / "run")


everything = pytest.mark.parametrize("share", REFUSALS[-1:], indirect=True)


@everything
@pytest.mark.usefixtures("no_plots")
def test_run_is_resumed(copied, share, finished, lines, capfd):
    training.train(FAST | {"epochs": 3}, lines, copied, resume=True, progress=False)
    assert {path.name for path in copied.iterdir()} == {path.name for path in finished.iterdir()}
    check_told(share, capfd.readouterr().err, ["fsync", "flock", "replace"])


@everything
def test_run_is_published(share, finished, tmp_path, capfd):
    found = export.publish(finished, tmp_path, progress=False)
    assert [path.name for path in sorted((tmp_path / "arrays").iterdir())] == ["1", "config.pbtxt"]
    assert not list(found.folder.glob(".*")), "nothing is left"
    check_told(share, capfd.readouterr().err, ["fsync", "replace"])


@each_share
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_results_are_written_twice(share, suffix, tmp_path, caplog):
    seven = Path(__file__).parent / "seven.png"
    job = Job(RELEASE, "mnist", 1, form_of(Path(f"results{suffix}")), "/")
    for _ in range(2):
        with Results(tmp_path / f"results{suffix}", Inputs([str(seven)], io.BytesIO()), job) as results:
            if not results.rows:
                row = Row(str(seven), error="not read", model="mnist/1")
                results.add(Rows([job.form.encode(row)], 1, f"{seven}: not read", 0))
            results.finish()
    assert [path.name for path in tmp_path.iterdir()] == [f"results{suffix}"]
    check_told(share, caplog.text, ["fsync", "flock"])


@each_share
def test_file_of_the_service_is_replaced(share, tmp_path, caplog):
    """As that of Parquet is."""
    (tmp_path / "file").write_bytes(b"old")
    for content in (b"one", b"two"):
        with shares.writing(tmp_path / "file") as file:
            file.write(content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    check_told(share, caplog.text, ["fsync", "replace"])


@each_share
def test_corrections_are_stored_and_set_aside(share, tmp_path, caplog):
    store = Store(Settings(feedback=str(tmp_path)))
    answer, model = Answer("7", 0.9, True, None), ModelVersion("mnist", "1")

    def add(label):
        record = Record(label, answer, model, "id", "2026-01-01T00:00:00Z", [[0] * 28] * 28)
        return store.add(b"picture", record, deadline=float("inf"))

    assert [add("7"), add("7"), add("1")] == ["stored", "known", "disputed"]
    assert store.report().disputed_pictures == 1
    check_told(share, caplog.text, ["fsync", "flock"])


@each_share
def test_state_of_a_rollout_needs_locks_and_replacing(share, tmp_path):
    """Without them, a worker could serve a version that nobody has promoted."""
    (tmp_path / "mnist").mkdir()
    rollouts = RolloutFiles(tmp_path, "")

    def change_twice():
        for _ in range(2):
            rollouts.change("mnist", lambda _: RolloutState("1"))

    if share in ("flock", "replace", "all of it"):
        with pytest.raises(RolloutError, match=r"cannot be written: .*; name another folder with --state"):
            change_twice()
    else:
        change_twice()
        assert rollouts.read("mnist") == RolloutState("1")


@pytest.mark.parametrize("share", [("fsync", errno.EIO)], indirect=True)
def test_disk_that_fails_is_an_error(share, tmp_path):
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "file", b"content")
    with (
        Results(tmp_path / "results.csv", Inputs([], io.BytesIO()), Job(RELEASE, "mnist", 1, Csv(), "/")) as results,
        pytest.raises(ResultsError, match="Input/output error"),
    ):
        results.finish()


@pytest.mark.parametrize("umask", [0o000, 0o027])
@pytest.mark.usefixtures("no_plots")
def test_files_of_a_run_have_one_mode_whatever_the_umask_is(lines, tmp_path, umask):
    before = os.umask(umask)
    try:
        training.train(FAST, lines, tmp_path / "run", progress=False)
    finally:
        os.umask(before)
    run = tmp_path / "run"
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()} == {0o666 & ~umask}
    assert stat.S_IMODE(run.stat().st_mode) == 0o777 & ~umask

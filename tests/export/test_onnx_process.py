"""The process that writes the ONNX file. The tests of the command use it for whole exports."""

import errno
import io
import pickle

import pytest

import export.onnx
from export.onnx_process import OnnxProcess, write


@pytest.fixture
def source():
    return io.BytesIO(pickle.dumps(("graph", "model.onnx")))


def test_killed_process_leaves_the_file_to_the_caller():
    with OnnxProcess() as process:
        process._process.kill()
        process.begin("graph" * 100_000)
        assert not process.finish()
        with process:  # Its end may come twice.
            pass


def test_process_writes_what_it_is_told(source, monkeypatch):
    written, outcome = [], io.BytesIO()
    monkeypatch.setattr(export.onnx, "export_onnx", lambda *arguments: written.append(arguments))
    write(source, outcome)
    assert written == [("graph", "model.onnx")]
    assert pickle.loads(outcome.getvalue()) is None


def test_full_disk_is_told_to_the_caller(source, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")

    outcome = io.BytesIO()
    monkeypatch.setattr(export.onnx, "export_onnx", fail)
    write(source, outcome)
    error = pickle.loads(outcome.getvalue())
    assert (error.errno, error.filename) == (errno.ENOSPC, "model.onnx")


def test_other_failures_are_left_to_the_caller_who_then_meets_them_itself(source, monkeypatch):
    def fail(*_):
        raise RuntimeError

    outcome = io.BytesIO()
    monkeypatch.setattr(export.onnx, "export_onnx", fail)
    with pytest.raises(RuntimeError):
        write(source, outcome)
    assert not outcome.getvalue()


def test_without_anything_to_export_the_process_just_ends():
    outcome = io.BytesIO()
    write(io.BytesIO(), outcome)
    assert not outcome.getvalue()


def test_files_of_the_user_do_not_stand_in_for_modules(in_the_way):
    """With nothing to do, the process ends well only if it could import everything."""
    with OnnxProcess() as process:
        process._process.communicate()
        assert process._process.returncode == 0

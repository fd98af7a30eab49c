"""mnist-predict of many pictures: rows in order, files of results, and going on after an interruption."""

from __future__ import annotations

import csv
import io
import json
import operator
import os
import re
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from serving.batch import local, parquet, run
from serving.batch.earlier import SAMPLES, Known, Sample
from serving.batch.inputs import CHUNK, Input, Inputs
from serving.batch.job import Job
from serving.batch.predictor import Predictor
from serving.batch.results import Results
from serving.batch.rows import CSV_COLUMNS, Csv, JsonLines, Row, Table
from serving.errors import BundleError, InputsError, ResultsError, ServiceError, SettingsError, WorkerError
from serving.settings import RELEASE
from tests.serving.models.bundles import favour, publish
from tests.support import BIN, ROOT, mode_0, picture, until

SEVEN = ROOT / "tests" / "seven.png"
JOB, JOB_OF_LINES = (Job(RELEASE, "mnist", 1, form, "/") for form in (Csv(), JsonLines()))
# Two whole chunks and a part of the third.
PICTURES = 2 * CHUNK + 6
BROKEN, BLANK = 40, 41
ACCEPTED = PICTURES - 2
# Open files that a process may have: enough to start, and too few for 60 others.
FEW_FILES = 40


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Return a folder with digits, of which one is no picture and one is blank."""
    from benchmarks.harness import golden_digits

    folder = tmp_path_factory.mktemp("scans")
    digits = golden_digits()[0]
    for i in range(PICTURES):
        (folder / f"{i:03d}.png").write_bytes(picture(digits[i % len(digits)]))
    (folder / f"{BROKEN:03d}.png").write_text("no picture")
    (folder / f"{BLANK:03d}.png").write_bytes(picture(np.zeros((28, 28), np.uint8)))
    return folder


def predict(*arguments, output=None, workers=1, **options):
    """Run the command in this process. Return the outcome and what it printed."""
    given = {"repository": RELEASE, "model": "mnist", "as_json": False, "engine": "local", "ray_address": None}
    printed = []
    every = run.Options(output=output, workers=workers, **given | options)
    every.check()
    return run.predict(map(str, arguments), every, printed.append), b"".join(printed).decode()


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory):
    """Return the file of results of a run without an interruption, for each ending."""
    folder = tmp_path_factory.mktemp("whole")
    files = {suffix: folder / f"whole{suffix}" for suffix in (".csv", ".jsonl")}
    for path in files.values():
        outcome, _ = predict(scans, output=path)
        assert (outcome.rows, outcome.unreadable, outcome.accepted) == (PICTURES, 1, ACCEPTED)
    return files


def test_csv_has_a_row_for_each_picture_in_order(whole, scans):
    with whole[".csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert [row["file"] for row in rows] == [str(path) for path in sorted(scans.iterdir())]
    assert (rows[0]["digit"], rows[0]["accepted"], rows[0]["model"]) == ("0", "true", "mnist/1")
    assert rows[BROKEN]["error"].startswith("not a picture")
    assert (rows[BROKEN]["digit"], rows[BROKEN]["accepted"]) == ("", "false")


def test_json_lines_have_the_fields_of_a_prediction(whole):
    rows = [json.loads(line) for line in whole[".jsonl"].read_text().splitlines()]
    assert len(rows) == PICTURES
    assert rows[0]["confidence"] == rows[0]["probabilities"][0]
    assert [row["file"] for row in rows if row["error"]] == [rows[BROKEN]["file"]]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("share", [0, 0.01, 0.4, 0.99, 1])
def test_run_goes_on_after_it_was_killed_at_any_byte(whole, scans, tmp_path, suffix, share):
    expected = whole[suffix].read_bytes()
    output = tmp_path / f"results{suffix}"
    output.write_bytes(expected[: int(share * len(expected))])
    outcome, _ = predict(scans, output=output)
    assert output.read_bytes() == expected
    assert (outcome.rows, outcome.unreadable, outcome.accepted) == (PICTURES, 1, ACCEPTED)
    assert outcome.first_error.startswith(f"{scans}/{BROKEN:03d}.png: not a picture")


def test_file_of_results_among_the_pictures_is_left_out(tmp_path):
    for name in "a.png", "z.png":
        (tmp_path / name).symlink_to(SEVEN)
    output = tmp_path / "results.jsonl"
    for arguments in ([tmp_path / "*"], [tmp_path / "*"], sorted(tmp_path.iterdir()), [tmp_path]):
        outcome, _ = predict(*arguments, output=output)
        assert (outcome.rows, outcome.unreadable, outcome.left_out) == (2, 0, 0)
    with pytest.raises(InputsError, match=rf"^{output}: is the file of results; name the pictures$"):
        predict(output, output=output)
    # In another folder it is a file like any other.
    (tmp_path / "other").mkdir()
    assert predict(output, output=tmp_path / "other" / output.name)[0].unreadable == 1


def test_complete_file_is_not_written_again(whole, scans):
    before = whole[".csv"].stat().st_mtime_ns
    predict(scans, output=whole[".csv"])
    assert whole[".csv"].stat().st_mtime_ns == before


def test_last_line_says_how_many_rows_a_person_must_look_at(run, scans, tmp_path):
    output = tmp_path / "results.csv"
    for end in (r"[\d.,]+ pictures per second", "all there already"):
        done = run("mnist-predict", scans / "000.png", scans / f"{BLANK:03d}.png", "--output", output)
        assert re.fullmatch(rf"{output}: 2 rows, 1 accepted, {end}\n", done.stdout)


def test_names_with_line_breaks_and_quotes_go_on_too(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for i in range(CHUNK + 3):
        (scans / f'{i:02d} "a",\n\r"b.png').symlink_to(SEVEN)
    output = tmp_path / "results.csv"
    predict(scans, output=output)
    expected = output.read_bytes()
    # The last one ends with the line break of a name.
    for end in (-50, expected.index(b"\n", expected.index(b"\n") + 1) + 1):
        output.write_bytes(expected[:end])
        predict(scans, output=output)
        assert output.read_bytes() == expected


@pytest.mark.parametrize("name", [b"a\r.png", b"a\rb,c.png", b" a", b'"', "\u2028\x85\x0c".encode(), b"\xff" * 50_000])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_any_name_goes_on(tmp_path, name, suffix):
    output = tmp_path / f"results{suffix}"
    (tmp_path / "names.txt").write_bytes(b"%b\nnone.png\n" % name)
    rows = []
    for _ in range(2):
        predict(tmp_path / "names.txt", output=output)
        with output.open(newline="", encoding="utf-8") as file:
            rows.append([row["file"] for row in (csv.DictReader(file) if suffix == ".csv" else map(json.loads, file))])
    assert rows == [[name.decode("utf-8", "backslashreplace"), "none.png"]] * 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name,phone\nx,1\n", "it is not a file of mnist-predict"),
        (b"one line of something else", "it is not a file of mnist-predict"),
        (",".join(CSV_COLUMNS).encode() + b"\nother.png,7,7,1,true,,,mnist/1\n", "its row 1 is about other.png"),
        (",".join(CSV_COLUMNS).encode() + b"\n%b,7,7,1,true,,,mnist/9\n", "its row 1 is from the model mnist/9"),
    ],
)
def test_file_with_other_content_stays_as_it_is(tmp_path, content, reason):
    content = content.replace(b"%b", os.fsencode(SEVEN))
    output = tmp_path / "results.csv"
    output.write_bytes(content)
    with pytest.raises(ResultsError, match=reason):
        predict(SEVEN, output=output)
    assert output.read_bytes() == content


def test_lines_of_deeply_nested_json_stay_as_they_are(tmp_path):
    output = tmp_path / "results.jsonl"
    output.write_bytes(b'{"file":"x","more":' + b"[" * 100_000 + b"\n")
    with pytest.raises(ResultsError, match="it is not a file of mnist-predict"):
        predict(SEVEN, output=output)


@pytest.mark.parametrize("share", [0.6, 1])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_of_another_model_of_the_same_name_stay_as_they_are(whole, scans, tmp_path, suffix, share):
    publish(tmp_path, 1, damage=favour(3, 6.0))
    output = tmp_path / f"results{suffix}"
    content = whole[suffix].read_bytes()
    output.write_bytes(content[: int(share * len(content))])
    before = output.read_bytes()
    with pytest.raises(ResultsError, match=r"its row 1 is not what mnist/1 says about .*000\.png now; choose another"):
        predict(scans, output=output, repository=tmp_path)
    assert output.read_bytes() == before


def test_rows_of_other_pictures_of_the_same_names_stay_as_they_are(scans, tmp_path, monkeypatch):
    pictures = sorted(scans.iterdir())[:CHUNK]
    output = tmp_path / "results.csv"
    for day, order in (("monday", pictures), ("tuesday", pictures[1:] + pictures[:1])):
        (tmp_path / day).mkdir()
        for place, content in zip(pictures, order, strict=True):
            (tmp_path / day / place.name).symlink_to(content)
    monkeypatch.chdir(tmp_path / "monday")
    predict(".", output=output)
    before = output.read_bytes()
    monkeypatch.chdir(tmp_path / "tuesday")
    with pytest.raises(ResultsError, match="its row 1 is not what mnist/1 says"):
        predict(".", output=output)
    assert output.read_bytes() == before
    # The folder may move, and a few pictures may be scanned again or be gone.
    monday = (tmp_path / "monday").rename(tmp_path / "archive")
    monkeypatch.chdir(monday)
    Path("000.png").unlink()
    Path("000.png").symlink_to(pictures[1])
    Path("002.png").unlink()
    (tmp_path / "names.txt").write_text("\n".join(f"./{path.name}" for path in pictures))
    assert predict(tmp_path / "names.txt", output=output)[0].rate == 0
    assert output.read_bytes() == before


def test_other_standard_input_is_not_there_already(tmp_path, monkeypatch):
    output = tmp_path / "results.csv"
    for content, expected in (
        (SEVEN.read_bytes(), 1),
        (SEVEN.read_bytes(), 1),
        (picture(np.zeros((9, 9), np.uint8)), 0),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        if expected:
            assert predict("-", output=output)[0].rows == 1
        else:
            with pytest.raises(ResultsError, match="is not what mnist/1 says about - now"):
                predict("-", output=output)


@pytest.mark.parametrize("rows", [1, SAMPLES, 1000, 5021])
def test_sample_is_spread_over_the_rows_of_a_file_of_any_length(rows):
    sample = Sample()
    for number in range(1, rows + 1):
        sample.add(number, Input(str(number)), Known(str(number), None, "mnist/1"))
    asked = []

    def recognise(pictures):
        asked.extend(int(each.name) for each in pictures)
        return [Row("", error="gone")] * len(pictures)

    assert sample.first_changed(recognise) is None
    assert min(rows, SAMPLES) <= len(asked) < 2 * SAMPLES
    assert asked[0] == 1
    assert asked[-1] > 0.9 * rows


def test_error_about_the_part_of_a_parquet_file_names_the_part(tmp_path):
    output = tmp_path / "results.parquet"
    part = tmp_path / "results.parquet.part"
    part.write_bytes(JsonLines().encode(Row("other.png", error="gone", model="mnist/1")))
    with pytest.raises(ResultsError, match=f"^{part} has other results: its row 1 is about other.png"):
        Results(output, Inputs([str(SEVEN)], io.BytesIO()), JOB_OF_LINES).__enter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "x.xlsx"}, "--output x.xlsx: must end with .csv, .jsonl or .parquet"),
        ({"output": "none/x.csv"}, "--output none/x.csv: the folder none must exist"),
        ({"output": "tests.csv", "as_json": True}, "--json: is for standard output"),
        ({"ray_address": "x"}, "--ray-address x: needs --engine ray"),
    ],
)
def test_wrong_option_names_its_rule(options, message):
    output = options.pop("output", None)
    with pytest.raises(SettingsError, match=message):
        predict(SEVEN, output=output and Path(output), **options)


def test_file_that_another_run_writes_is_rejected(scans, tmp_path):
    output = tmp_path / "results.csv"
    other = Results(output, Inputs([str(scans)], io.BytesIO()), JOB)
    with other, pytest.raises(ResultsError, match="is being written by another mnist-predict"):
        predict(scans, output=output)
    assert not output.exists()


def test_second_run_with_the_same_parquet_file_leaves_the_part_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "unpack", lambda path: [])  # Only a test that installs pyarrow can unpack it.
    output, part = tmp_path / "results.parquet", tmp_path / "results.parquet.part"
    output.touch()
    first, second = (Results(output, Inputs([str(SEVEN)], io.BytesIO()), JOB_OF_LINES) for _ in range(2))
    with ExitStack() as stack:
        lock = second._lock
        # The first run is faster: it has the lock when the second has just opened the part.
        monkeypatch.setattr(second, "_lock", lambda: (stack.enter_context(first), lock()))
        with pytest.raises(ResultsError, match="is being written by another mnist-predict"):
            second.__enter__()
        assert part.exists()


def test_damaged_parquet_file_is_called_so(tmp_path, monkeypatch):
    def unpack(path):
        raise OSError("Corrupt snappy compressed data.")  # As pyarrow does: without a number.

    monkeypatch.setattr(parquet, "unpack", unpack)
    output = tmp_path / "results.parquet"
    output.write_bytes(b"rows")
    with pytest.raises(ResultsError, match=f"^{output} has other results: it is damaged; choose another --output"):
        Results(output, Inputs([str(SEVEN)], io.BytesIO()), JOB_OF_LINES).__enter__()
    assert list(tmp_path.iterdir()) == [output]


def test_parquet_file_is_unpacked_whole_if_a_write_writes_a_part(tmp_path, monkeypatch):
    class Partial(io.FileIO):
        def write(self, content):
            return super().write(content[:100])

    # A row with an error is not compared with the picture.
    row = Row(str(SEVEN), error="damaged" * 20, model="mnist/1")
    monkeypatch.setattr(parquet, "unpack", lambda path: [JsonLines().encode(row)])
    output = tmp_path / "results.parquet"
    output.touch()
    results = Results(output, Inputs([str(SEVEN)], io.BytesIO()), JOB_OF_LINES)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, mode, buffering: Partial(self, mode.replace("b", "")))
        results.__enter__()
    with results._file:
        assert results.rows == 1


def test_disk_that_becomes_full_is_one_line_and_the_run_goes_on_later(whole, scans, tmp_path):
    output = tmp_path / "results.csv"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(ResultsError, match=f"{output}: File too large; the same command continues from here"):
            predict(scans, output=output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert output.stat().st_size == 4000
    predict(scans, output=output)
    assert output.read_bytes() == whole[".csv"].read_bytes()


def test_output_without_the_right_to_write_it_names_the_way_out(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    output = folder / "results.csv"
    error = f"{output}: Permission denied; choose another --output, in a folder where you may write$"
    with mode_0(folder):
        with pytest.raises(ResultsError, match=error):
            Results(output, Inputs([str(SEVEN)], io.BytesIO()), JOB).__enter__()
        # Even whether the file is a folder cannot be found out.
        with pytest.raises(ServiceError, match=error):
            predict(SEVEN, output=output)


def test_device_is_not_a_file_of_results(scans, tmp_path):
    output = tmp_path / "results.csv"
    output.symlink_to("/dev/zero")
    with pytest.raises(ResultsError, match="must be a regular file"):
        predict(scans, output=output)


def test_model_that_cannot_be_loaded_leaves_no_file(scans, tmp_path):
    with pytest.raises(BundleError, match="holds no model"):
        predict(scans, output=tmp_path / "results.csv", repository=tmp_path)
    with pytest.raises(BundleError, match="holds no model"):
        predict(scans, output=tmp_path / "results.csv", repository=tmp_path, workers=2)
    assert list(tmp_path.iterdir()) == []


# Standard output


def test_table_shows_no_digit_that_is_not_accepted_and_never_100_percent():
    table = Table(width=7)
    for row, line in (
        (Row("a.png", 7, "7", 0.99996, [], accepted=True), "a.png    7         >99.99%  yes"),
        (Row("a.png", 7, "7", 0.9999, [], accepted=True), "a.png    7          99.99%  yes"),
        (Row("a.png", 7, "7", 0.5, [], reason="no digit"), "a.png    -               -  no digit"),
        (
            Row("a.png", 7, "7", 0.5, [], reason="several"),
            "a.png    -               -  several; try --number",
        ),
        (Row("b\n\x1b[2Jpng", error="it is gone"), r"b\n\x1b[2Jpng  -               -  it is gone"),
    ):
        assert table.encode(row).decode() == line + "\n"


def test_table_has_a_column_as_wide_as_the_names_of_the_classes(scans, tmp_path):
    names = (*(f"class {number}" for number in range(9)), "evil\x1b[2J")
    publish(tmp_path, 1, "letters", labels=names)
    _, printed = predict(scans / "000.png", scans / "001.png", repository=tmp_path, model="letters")
    head, *rows = printed.splitlines()
    assert head.split() == ["file", "label", "confidence", "accepted"]
    assert all(row.index("%") == head.index("confidence") + 9 for row in rows)
    assert "class 0" in rows[0]
    assert Table.of(7, names).encode(Row("a.png", None, names[-1], 0.5, [], accepted=True)).isascii()
    assert Table.of(7, names).encode(Row("a.png", None, names[0], 0.5, [], reason="several")).endswith(b"  several\n")
    assert Table.of(7, ["x" * 128]).header() == Table.of(7, ["y" * 40]).header()
    assert Table.of(7, ["3", "7"]) == Table.of(7, ()) == Table(7)


def test_json_of_a_model_of_letters_has_no_digit(scans, tmp_path):
    publish(tmp_path, 1, "letters", labels=tuple("ABCDEFGHIJ"))
    _, printed = predict(scans / "000.png", repository=tmp_path, model="letters", as_json=True)
    [prediction] = json.loads(printed)["predictions"]
    assert prediction["label"] in "ABCDEFGHIJ"
    assert "digit" not in prediction


def test_json_is_one_document(scans):
    outcome, printed = predict(scans, as_json=True)
    document = json.loads(printed)
    assert document["model"] == {"name": "mnist", "version": "1"}
    assert len(document["predictions"]) == outcome.rows == PICTURES


@pytest.mark.parametrize("name", ["/dev/zero", ".", "", "x" * 300, "a\0b"])
def test_file_that_is_not_regular_is_a_row(name):
    [row] = Predictor(Job(RELEASE, "mnist", 1, JsonLines(), "/")).rows([Input(name)])
    assert row.error


def test_folder_that_was_removed_is_one_line(tmp_path):
    line = 'cd "$1" && rmdir "$1" && exec "$2" "$3"'
    command = ["sh", "-c", line, "sh", tmp_path / "gone", BIN / "mnist-predict", SEVEN]
    (tmp_path / "gone").mkdir()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the current folder was removed; change to another one first\n",
    )


def test_standard_input_and_odd_names_are_read(run, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff.png")
    odd.symlink_to(SEVEN)
    done = run("mnist-predict", "-", odd, input=SEVEN.read_bytes().decode("latin-1"), encoding="latin-1")
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["-", "7"], [rf"{tmp_path}/\xff.png", "7"]]
    done = run("mnist-predict", "-", input=f"{SEVEN}\nnone.png\n")
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == ["7", "-"]
    assert (done.returncode, done.stderr) == (3, "Error: none.png: No such file or directory\n")


# The processes


def test_workers_give_the_rows_of_one_process_in_order(whole, scans, tmp_path):
    predict(scans, output=tmp_path / "results.csv", workers=2)
    assert (tmp_path / "results.csv").read_bytes() == whole[".csv"].read_bytes()


def test_no_more_processes_start_than_there_are_chunks(whole, scans, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(local, "_Worker", lambda job, kind=local._Worker: started.append(job) or kind(job))
    predict(scans, output=tmp_path / "results.csv", workers=8)
    assert len(started) == 3
    assert (tmp_path / "results.csv").read_bytes() == whole[".csv"].read_bytes()


def test_process_that_the_system_does_not_start_is_one_line(tmp_path):
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW_FILES}, {FEW_FILES}));"
    command = [sys.executable, "-c", f"{limit} from serving.cli import predict; predict()", "-", "--workers", "60"]
    failed = subprocess.run(command, input=f"{SEVEN}\n" * CHUNK * 60, capture_output=True, text=True, cwd=ROOT)
    assert failed.returncode == 1
    assert failed.stderr == "Error: a worker process cannot start: Too many open files; use fewer --workers\n"


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGSEGV, local.CRASHED), (signal.SIGKILL, local.KILLED)])
def test_picture_that_ends_a_worker_is_a_row_and_the_others_go_on(number, reason):
    with local._Workers(Job(RELEASE, "mnist", 1, JsonLines(), "/"), 1) as workers:
        for chunk in ([Input(str(SEVEN))] * 2, [Input(str(SEVEN))]):
            [worker] = workers._all
            os.kill(worker._process.pid, number)
            found = workers.predict(chunk)
            rows = [json.loads(row) for row in found.encoded]
            expected = [None] * 2 if len(chunk) == 2 else [reason]
            assert [row["error"] for row in rows] == expected
            assert (found.accepted, found.unreadable) == ((2, 0) if len(chunk) == 2 else (0, 1))


def test_worker_that_cannot_be_replaced_is_the_same_error_for_every_chunk(monkeypatch):
    with local._Workers(Job(RELEASE, "mnist", 1, JsonLines(), "/"), 1) as workers:
        workers._all[0]._process.kill()
        monkeypatch.setattr(local, "_work", operator.is_)  # The new process ends at once.
        for _ in range(2):
            with pytest.raises(WorkerError, match=r"ended with status 0 before it was ready$"):
                workers.predict([Input(str(SEVEN))])


def test_worker_that_is_killed_at_its_start_is_explained():
    with local._Workers(Job(RELEASE, "mnist", 1, JsonLines(), "/"), 1) as workers:
        new = workers._replace(workers._all[0])
        new._process.kill()
        reason = "was killed by SIGKILL before it was ready; perhaps memory was short; use fewer --workers"
        with pytest.raises(WorkerError, match=reason):
            new.wait_until_ready()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_command_leaves_whole_rows_and_no_process(tmp_path, number):
    output = tmp_path / "results.csv"
    command = [BIN / "mnist-predict", "-", "--output", output, "--workers", "2"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **streams, text=True, start_new_session=True)
    process.stdin.write(f"{SEVEN}\n" * 20_000)
    process.stdin.close()
    process.stdin = None
    until(lambda: output.exists() and output.stat().st_size)
    # Ctrl-C in a terminal goes to the whole group.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, error = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert error.splitlines()[-1] == "Stopped. The same command continues from here."
    assert "Traceback" not in error
    until(lambda: not group_exists(process.pid))
    with output.open(newline="") as file:
        assert {row["digit"] for row in csv.DictReader(file)} == {"7"}


def group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True

"""mnist-predict: pictures on the command line, no server."""

from __future__ import annotations

import json

from tests.support import ROOT

SEVEN = ROOT / "tests" / "seven.png"


def test_table(run):
    done = run("mnist-predict", SEVEN, SEVEN)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["file", "digit", "confidence", "accepted"]
    assert [row.split()[:2] for row in rows] == [[str(SEVEN), "7"]] * 2


def test_json(run):
    answer = json.loads(run("mnist-predict", "--json", SEVEN).stdout)
    assert answer["model"] == {"name": "mnist", "version": "1"}
    [prediction] = answer["predictions"]
    assert prediction["file"] == str(SEVEN)
    assert prediction["digit"] == 7
    assert len(prediction["probabilities"]) == 10


def test_mistakes(run, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for arguments, said in (
        ([tmp_path / "none.png"], "none.png: No such file"),
        ([text], "text.png: not a picture"),
        ([tmp_path], "directory"),
        ([SEVEN, "--repository", tmp_path], "holds no model"),
    ):
        refused = run("mnist-predict", *arguments)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr
    assert run("mnist-predict").returncode == 2

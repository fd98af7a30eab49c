"""A newcomer with a folder of 26 letters: the three commands at the top of docs/own-data.md lead to a served model."""

from __future__ import annotations

import string
import subprocess

import httpx

from benchmarks.letters import documented_commands, draw_letters, predicted, served, words_of


def test_three_commands_lead_from_a_folder_of_letters_to_a_page_and_predictions(tmp_path):
    draw_letters(tmp_path / "letters", 10)
    train, export, serve = documented_commands()
    # The epochs of the recipe would take a minute and a half.
    for command, more in ((train, ["--epochs", "6"]), (export, [])):
        done = subprocess.run(words_of(command, *more), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    # Each command names the next one, and that is the one of the documentation.
    assert done.stdout.splitlines()[-1].removeprefix("Next").strip() == serve
    with served(serve, tmp_path) as url:
        assert httpx.get(url).status_code == 200
        assert tuple(httpx.get(f"{url}/certificate").json()["labels"]) == tuple(string.ascii_uppercase)
        labels = [predicted(url, tmp_path / "letters" / letter / "00.png") for letter in string.ascii_uppercase]
    assert sum(map(str.__eq__, labels, string.ascii_uppercase)) > 13, labels

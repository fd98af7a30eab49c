"""The base of the commands: signals, closed streams, paths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from training.command import Folder
from training.config import ConfigError
from training.device import check_device
from training.memory import is_memory_error

# An import may lose the exception that a signal raises, as here.
IMPORTING = """
import os, sys
from training.command import ending_at_once
with ending_at_once():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
    except BaseException:
        pass
print("went on")
"""

RUNNING = """
import os, sys, click
from training.command import Command
@click.command(cls=Command)
@click.argument("number", type=int)
def main(number):
    click.echo("begun")
    os.kill(os.getpid(), number)
    print("went on")
main()
"""


TORCH = RUNNING.replace(
    "os.kill(os.getpid(), number)",
    """
    try:
        os.kill(os.getpid(), number)
    except BaseException:
        raise RuntimeError("Failed to export the model")
""",
)


MISTAKEN = """
import click
from training.command import Command, Folder
@click.command(cls=Command)
@click.argument("folder", type=Folder())
@click.option("--name")
def main(folder, name):
    raise click.ClickException(f"{folder / 'run.json'}: has no {name}\\nTried: nothing")
main()
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a\nb", "--name", "c"], "a\\nb/run.json: has no c\nTried: nothing"),
        (["a/\x1b[2J//b", "--name=\r\tc"], "a/\\x1b[2J/b/run.json: has no \\r\\tc\nTried: nothing"),
        (["é\u200bü", "--name", "c"], "é\\u200bü/run.json: has no c\nTried: nothing"),
    ],
)
def test_control_characters_of_a_name_are_escaped_in_errors(arguments, message):
    done = python(MISTAKEN, *arguments, encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert done.stderr == f"Error: {message}\n"
    assert done.returncode == 1


def python(program, *arguments, **options):
    line = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", [IMPORTING, RUNNING, TORCH])
def test_signal_ends_the_command_with_one_line(program, number):
    # The children of a background job ignore Ctrl-C unless it is turned on again.
    reset = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    done = python(reset + program, int(number))
    assert done.returncode == 128 + number
    assert done.stderr.split() == ["Stopped."]
    assert "went on" not in done.stdout


def test_command_that_ignores_ctrl_c_goes_on():
    """As below nohup."""
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert python(ignore + IMPORTING, int(signal.SIGINT)).stdout == "went on\n"


def test_command_works_with_closed_streams_and_prints_what_the_encoding_lacks():
    program = "import click\nfrom training.command import Command\n"
    program += "click.command(cls=Command)(lambda: click.echo('\u2501 \xfc'))()"
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" <&- >&- && PYTHONIOENCODING=ascii "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_command_ends_at_once_with_all_that_it_printed():
    """Python would first remove all objects, which takes a second after torch was imported."""
    program = "import atexit, sys\natexit.register(print, 'removed objects')\n"
    done = python(program + RUNNING.replace("os.kill(os.getpid(), number)", "sys.stdout.write('end')"), 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\nendwent on\n", "")
    wrong = python(program + RUNNING, "x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Invalid value" in wrong.stderr


def test_home_folder_may_be_written_with_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert Folder().convert("~/runs", None, None) == Path("/somewhere/runs")
    assert Folder().convert("runs/~x", None, None) == Path("runs/~x")
    with pytest.raises(click.BadParameter, match="~nobody-has-this-name"):
        Folder().convert("~nobody-has-this-name/runs", None, None)


def test_empty_name_of_a_folder_is_an_error():
    with pytest.raises(click.BadParameter, match="must not be empty"):
        Folder().convert("", None, None)


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", "vulkan", "nonsense", "", "cpu:x"])
def test_device_that_cannot_compute_is_an_error_of_one_line(name):
    with pytest.raises(ConfigError, match=f"^--device {name}: .*; choose cpu, cuda, cuda:1 or mps$"):
        check_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_an_error_that_does_not_advise_a_gpu():
    with pytest.raises(ConfigError, match=r"^--device cuda: .*; leave --device out to train on the CPU, or install"):
        check_device("cuda")


def test_too_little_memory_is_known_by_its_errors():
    assert is_memory_error(MemoryError())
    assert is_memory_error(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."))
    assert not is_memory_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

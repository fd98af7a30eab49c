"""Run fuzz targets under Atheris: python -m tests.fuzz TARGET,... [OPTIONS OF libFuzzer]

``make fuzz`` runs every target for a minute. Atheris changes inputs of ``tests/fuzz/corpus/TARGET`` and records which
lines of Python they reach. It keeps the inputs that reach new lines in ``runs/fuzz/TARGET``, and the next run starts
from them.

When an input fails, Atheris prints the traceback and writes the input to a file, whose name it prints. Then:

1. Move this file to ``tests/fuzz/corpus/TARGET``, under a name that says what is wrong with it. From now on
   ``tests/fuzz/test_targets.py`` sends it, and fails until the service is fixed.
2. Make it as small as you can, and fix the service for all inputs of its kind.
3. Write a test of the right response beside the other tests of the code that you fixed.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
KEPT = Path("runs/fuzz")

# The packages that parse untrusted bytes in Python. Further packages would make the start and each run slower.
INSTRUMENTED = ["serving", "multipart", "PIL", "uvicorn"]

# libFuzzer takes the last value of an option, so the command line wins over these.
WORDS = Path(__file__).parent / "words"
# libFuzzer's own limit of memory also counts what the process that started this one has used.
MAX_MEMORY = 3_000_000_000
OPTIONS = (f"-dict={WORDS}", "-rss_limit_mb=0", "-timeout=60", "-max_len=60000", "-len_control=20")


def main() -> None:
    import atheris

    # The instrumentation takes several seconds, so all targets of a command share it.
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else []
    if not names or not TARGETS.keys() >= set(names):
        sys.exit(f"name targets, separated by commas: {', '.join(TARGETS)}")
    for name in names:
        # Atheris ends the process in which it runs. In a process of its own, a target also has its own applications.
        process = os.fork() if len(names) > 1 else 0
        if process == 0:
            fuzz(name, TARGETS[name])
            sys.exit()
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit(f"an input of the target {name} failed")


def fuzz(name: str, target: Callable[[bytes], object]) -> None:
    """Run a target in this process. Atheris ends the process."""
    import atheris

    program, _, *options = sys.argv
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    folders = [str(kept), str(CORPUS / name)]
    atheris.Setup([program, *OPTIONS, f"-artifact_prefix={KEPT}/{name}-", *options, *folders], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

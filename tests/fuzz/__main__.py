"""Run a fuzz target under Atheris: python -m tests.fuzz TARGET [OPTIONS OF libFuzzer]

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

import resource
import sys
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

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    program, name, *options = sys.argv
    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    folders = [str(kept), str(CORPUS / name)]
    atheris.Setup([program, *OPTIONS, f"-artifact_prefix={KEPT}/{name}-", *options, *folders], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

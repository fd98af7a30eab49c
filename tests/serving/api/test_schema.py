"""Everything /schema promises, tried with what it does and does not allow."""

from __future__ import annotations

import os
import subprocess

from tests.support import BIN, service

# 504 is the right answer to a deadline that a fuzzer puts into the past.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""


def test_schemathesis(tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with service("--admin-keys", "key") as (url, _):
        done = subprocess.run(
            [
                *(BIN / "schemathesis", "run", f"{url}/schema/openapi.json", "--no-color"),
                *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
                *("--checks", "response_schema_conformance,unsupported_method"),
                *("--header", "X-API-Key: key", "--max-examples", "10", "--seed", "1"),
                # One worker: Python before 3.12 miscounts depth when two threads parse at once, and hypothesis parses.
                *("--phases", "examples,coverage,fuzzing"),
                # Left out: a fuzzer that unloads the model has nothing to ask any more.
                *("--exclude-operation-id", "unloadModel"),
            ],
            cwd=tmp_path,
            env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

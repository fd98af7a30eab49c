"""schemathesis generates requests from /schema, valid and invalid ones, and checks the responses against it."""

from __future__ import annotations

import os
import subprocess

from tests.support import BIN, service

# 504 is the right response to a deadline in the past, which a generated request may have.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""


def test_responses_conform_to_the_schema(tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with service("--admin-keys", "key") as (url, _):
        done = subprocess.run(
            [
                *(BIN / "schemathesis", "run", f"{url}/schema/openapi.json", "--no-color"),
                *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
                *("--checks", "response_schema_conformance,unsupported_method"),
                *("--header", "X-API-Key: key", "--max-examples", "10", "--seed", "1"),
                # One worker, which is the default: in Python before 3.12 two threads that parse source code at the same
                # time miscount its depth, and hypothesis parses source code.
                *("--phases", "examples,coverage,fuzzing"),
                # Without its model the service could not respond to the other requests.
                *("--exclude-operation-id", "unloadModel"),
            ],
            cwd=tmp_path,
            env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

"""Everything /schema promises, tried with what it does and does not allow."""

from __future__ import annotations

import os
import subprocess

from conftest import BIN, service


def test_schemathesis(tmp_path):
    with service("--admin-keys", "key", "--repository", str(_models(tmp_path))) as (url, _):
        done = subprocess.run(
            [
                *(BIN / "schemathesis", "run", f"{url}/schema/openapi.json", "--no-color"),
                *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
                *("--checks", "response_schema_conformance,unsupported_method"),
                *("--header", "X-API-Key: key", "--max-examples", "10", "--seed", "1", "--workers", "2"),
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


def _models(tmp_path):
    import shutil

    from serving.bundle import RELEASE

    return shutil.copytree(RELEASE, tmp_path / "models")

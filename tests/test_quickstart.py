"""The notebook docs/quickstart.ipynb: it runs, and the outputs that it shows are those of a whole run."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
MAX_BYTES = 100_000


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """The kinds of the outputs of a cell: text, tables, pictures."""
    return [sorted(output["data"]) for output in cell.outputs if "data" in output]


@pytest.fixture(scope="module")
def shown():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_notebook_shows_a_whole_run(shown):
    cells = code_cells(shown)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert sum(map(len, map(kinds, cells))) >= 8, "it shows results"
    text = NOTEBOOK.read_text()
    assert len(text) < MAX_BYTES
    assert not re.search(r"/(tmp|home|root|work|Users)/", text), "it shows paths of a machine"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_notebook_runs_and_shows_the_same_kinds_of_results(shown, tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fresh = nbformat.from_dict(shown.copy())
    NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    assert list(map(kinds, code_cells(fresh))) == list(map(kinds, code_cells(shown)))
    prediction = code_cells(fresh)[-3].outputs[0]["data"]["text/plain"]
    assert prediction.startswith("<Prediction 'A' with")

"""Write the index that the library evidently gives for the histograms in evidently_psi.json into that file.

    python -m venv /tmp/evidently && /tmp/evidently/bin/pip install evidently==0.7.23 "pandas<3"
    DO_NOT_TRACK=1 /tmp/evidently/bin/python tests/serving/telemetry/evidently_psi.py

evidently takes 740 MB with its dependencies, so the tests compare with the recorded figures.
"""

from __future__ import annotations

import json
from pathlib import Path

import evidently
import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

FILE = Path(__file__).with_suffix(".json")


def index(expected: list[int], found: list[int]) -> float:
    """Return the index of two samples with these histograms. A value is the number of its bin."""
    definition = DataDefinition(categorical_columns=["bin"])
    reference, current = (
        Dataset.from_pandas(pd.DataFrame({"bin": np.repeat(np.arange(len(each)), each).astype(str)}), definition)
        for each in (expected, found)
    )
    result = Report([ValueDrift(column="bin", method="psi")]).run(current, reference)
    return float(result.dict()["metrics"][0]["value"])


def main() -> None:
    """Write the figures."""
    cases = json.loads(FILE.read_text())["cases"]
    for case in cases:
        case["psi"] = index(case["expected"], case["found"])
    lines = ",\n    ".join(json.dumps(case) for case in cases)
    FILE.write_text(f'{{\n  "evidently": "{evidently.__version__}",\n  "cases": [\n    {lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()

"""The memory that only the start of the service or large requests needed is returned to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="the system does not tell what its memory holds"
)


def test_settle_gives_memory_back_and_the_model_computes_as_before():
    script = """if True:
        import re
        from pathlib import Path
        from serving.models.classifier import Classifier
        from serving.server.memory import settle
        from serving.settings import RELEASE

        bundle = next(RELEASE.glob("*/1"))
        classifier, golden = Classifier(bundle / "model.onnx"), bundle / "golden.npz"
        resident = lambda: int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        before, difference = resident(), classifier.verify(golden, golden.read_bytes(), 1e-3)
        settle()
        print(resident() / before, classifier.verify(golden, golden.read_bytes(), 1e-3) == difference)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    left, same = done.stdout.split()
    assert float(left) < 0.8
    assert same == "True"


def test_memory_that_large_requests_have_used_is_returned():
    script = """if True:
        from serving.server.memory import Spare, _resident, settle

        settle()
        spare, start = Spare(), _resident()
        blocks = [bytes(2000) for _ in range(100_000)]
        kept = blocks[::1000]  # They keep the allocator from returning what is before them.
        del blocks
        used = _resident() - start
        spare.look()
        print((_resident() - start) / used)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2

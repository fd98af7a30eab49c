"""Two runs do not write into the same folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.training.support import FAST
from training.config import TrainConfig
from training.loop.errors import TrainingError
from training.loop.train import train

HOLD = "import sys; from pathlib import Path; from training.loop.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_folder_of_a_running_process_is_rejected_with_its_id(small, tmp_path):
    config = TrainConfig(**FAST)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    for resume in (False, True):
        with pytest.raises(TrainingError, match=f"process {holder.pid} is training in this folder"):
            train(config, small, tmp_path, resume=resume)
    assert list(tmp_path.iterdir()) == []
    # The lock ends with its process, even if that is killed.
    holder.kill()
    holder.communicate()
    train(config, small, tmp_path)

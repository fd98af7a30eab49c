"""The Python interface of training: look at a data set, train, and look at the run."""

from training.config import TrainConfig
from training.python.data import DataReport, check
from training.python.results import Plot, TrainingRun
from training.python.running import train

__all__ = ["DataReport", "Plot", "TrainConfig", "TrainingRun", "check", "train"]

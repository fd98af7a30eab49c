"""Training: from a data set to a run folder.

This package does not import export. Of serving, it imports only the code that prepares pictures.

    import training

    run = training.train({"recipe": "small-data"}, "./letters")

An import of this package loads nothing. The first use of a name below does, and the functions load torch when they are
called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.python import DataReport, Plot, TrainConfig, TrainingRun, check, train

__all__ = ["DataReport", "Plot", "TrainConfig", "TrainingRun", "check", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from training import python

    return getattr(python, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

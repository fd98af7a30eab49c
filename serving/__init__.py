"""From a model bundle to predictions, over HTTP or in Python. This package never imports torch.

    import serving

    serving.load("models/letters").predict(["scan.png", "photo.jpg"])

An import of this package loads nothing. The first use of a name below does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.python import LoadedModel, Prediction, Predictions, load

__all__ = ["LoadedModel", "Prediction", "Predictions", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from serving import python

    return getattr(python, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

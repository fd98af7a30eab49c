"""Export: from a run folder to a verified model bundle. This package imports both training and serving.

    import export

    bundle = export.publish("runs/letters", "models")

An import of this package loads nothing. The first use of a name below does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.python import PublishedModel, publish

__all__ = ["PublishedModel", "publish"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from export import python

    return getattr(python, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""How functions that take long report what they have done: a stage by its name, and the share of it that is done."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float], None]
"""Takes the share of a stage that is done, 0..1."""

Stage = Callable[[str], Report]
"""Takes the name of a stage when it begins, and returns a function that takes the share of it that is done."""


def no_report(_: float) -> None:
    """Take a share and do nothing."""


def no_stage(_: str) -> Report:
    """Take the name of a stage and report nothing of it."""
    return no_report

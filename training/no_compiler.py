"""Keep torch's compiler out of a command that compiles nothing. The only file that replaces a private part of torch.

torch's optimizers import ``torch._dynamo`` only to tell the compiler which functions to leave alone. The import takes
about 1.7 s, as long as ``import torch`` itself. tests/training/test_no_compiler.py fails if a new version of torch
needs more of the module than this file has.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

NAME = "torch._dynamo"


class _NoCompiler(types.ModuleType):
    """Takes the place of ``torch._dynamo``. Any other use of the module imports the real one."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
        return function

    @staticmethod
    def graph_break(*_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]
            delattr(torch, "_dynamo")
        return getattr(importlib.import_module(NAME), name)


def leave_out_compiler() -> None:
    """Let optimizers run without the compiler. It changes the whole process, so only commands call it."""
    if NAME not in sys.modules:
        sys.modules[NAME] = torch.__dict__["_dynamo"] = _NoCompiler(NAME)

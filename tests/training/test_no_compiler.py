"""mnist-train trains without torch's compiler, and with the same result."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

TRAIN = """if True:
    import sys, torch
    if sys.argv[1] == "without":
        from training.no_compiler import leave_out_compiler
        leave_out_compiler()
    from training.config import OPTIMIZER_DEFAULTS, TrainConfig
    from training.loop.optimizers import build_optimizer
    torch.manual_seed(0)
    for name in OPTIMIZER_DEFAULTS:
        network = torch.nn.Linear(5, 3)
        optimizer = build_optimizer(TrainConfig.of(optimizer=name), network)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.ones(4, 5)).square().sum().backward()
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        print(name, network.weight.sum().item(), network.bias.sum().item())
    print(any(name.startswith("torch._dynamo.") for name in sys.modules))
    import torch._dynamo.config
    print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
    print([callable(getattr(torch._dynamo, name)) for name in ("disable", "graph_break")])
"""


def output_of(how):
    line = [sys.executable, "-c", TRAIN, how]
    *weights, is_loaded, compiled, replaced = subprocess.run(
        line, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return SimpleNamespace(weights=weights, is_loaded=is_loaded, compiled=compiled, replaced=replaced)


@pytest.fixture(scope="module")
def without():
    return output_of("without")


@pytest.fixture(scope="module")
def with_compiler():
    return output_of("with")


def test_optimizers_do_not_load_the_compiler_and_compute_the_same(without, with_compiler):
    assert without.weights == with_compiler.weights
    assert without.is_loaded == "False"
    assert with_compiler.is_loaded == "True", "torch no longer loads its compiler: training/no_compiler.py can go"


def test_compiler_is_loaded_when_something_else_uses_it(without):
    assert without.compiled == "2.0"


def test_torch_still_has_what_is_replaced(with_compiler):
    assert with_compiler.replaced == "[True, True]"

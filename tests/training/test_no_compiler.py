"""mnist-train trains without torch's compiler, and with the same result."""

from __future__ import annotations

import subprocess
import sys

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
"""
COMPILE = """if True:
    import torch
    from training.no_compiler import leave_out_compiler
    leave_out_compiler()
    import torch._dynamo.config
    print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""


def output_of(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_optimizers_do_not_load_the_compiler_and_compute_the_same():
    without, with_compiler = output_of(TRAIN, "without"), output_of(TRAIN, "with")
    assert without[:-1] == with_compiler[:-1]
    assert without[-1] == "False"
    assert with_compiler[-1] == "True", "torch no longer loads its compiler: training/no_compiler.py can go"


def test_compiler_is_loaded_when_something_else_uses_it():
    assert output_of(COMPILE) == ["2.0"]


@pytest.mark.parametrize("name", ["disable", "graph_break"])
def test_torch_still_has_what_is_replaced(name):
    import torch._dynamo

    assert callable(getattr(torch._dynamo, name))

"""A recorded step: it trains as single steps do, and nothing in it waits for the device.

Only the recording itself needs a GPU. Here a graph on the CPU takes its place, which does the work again each time.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support import font_file
from tests.training.support import FAST, Stop, equal, first, rows, timeless
from training import checkpoint
from training.config import OPTIMIZER_DEFAULTS, TrainConfig
from training.data.digits import Digits
from training.device import use_deterministic_operations
from training.loop import distributed, graph, inputs
from training.loop.errors import DivergedError
from training.loop.graph import Plan, plan_for
from training.loop.inputs import inputs_of_steps
from training.loop.losses import Losses
from training.loop.optimizers import build_optimizer, load_optimizer, set_rate
from training.loop.state import State
from training.loop.step import set_rate_and_decay, take_step
from training.loop.train import train
from training.networks import build

pytestmark = pytest.mark.usefixtures("no_plots", "no_end")
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture
def no_end(monkeypatch):
    """Leave out what follows the last step. It takes longer than the steps of these tests."""
    monkeypatch.setattr("training.loop.train.finish", lambda *_: None)


def trained(folder):
    """The weights after the last step, and their average."""
    saved = checkpoint.load(folder / "last.pt")
    return saved["network"] | (saved["averaged"] or {})


class Repeater:
    """Takes the place of CudaGraph. It records a function, and calls it for each repetition."""

    def __init__(self):
        self.calls = []

    def warm_up(self, work):
        self.calls.append("warm up")
        return work()

    def capture(self, work):
        self.calls.append("capture")
        self.work, self.result = work, torch.full((), torch.nan, dtype=torch.float64)
        return self.result

    def replay(self):
        self.calls.append("replay")
        self.result.copy_(self.work())


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Return a function that makes runs on the CPU use a plan, and tensors for the numbers that differ by step."""
    new = State.new.__func__

    def with_tensors(cls, config, *arguments, **options):
        state = new(cls, config, *arguments, **options)
        for group in state.optimizer.param_groups:
            group["lr"] = torch.tensor(config.learning_rate)
        if state.averaged:
            state.averaged._decay = torch.zeros(())
        return state

    def use(plan):
        monkeypatch.setattr(State, "new", classmethod(with_tensors))
        monkeypatch.setattr("training.loop.train.plan_for", lambda *_, **__: plan)

    return use


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """A folder with one font. A run draws few digits in it, because drawing takes long."""
    monkeypatch.setattr("training.loop.extras.FONT_DIGITS", 50)
    folder = tmp_path / "fonts"
    folder.mkdir()
    shutil.copy(font_file("DejaVuSans"), folder)
    return str(folder)


def graphed(repeater, images_at_a_time=150):
    return Plan(repeater, images_at_a_time, False, "each step is a CUDA graph")


# With 256 images, an epoch has four batches of 60 and one of 16.
SETTINGS = FAST | {"batch_size": 60, "elastic": 0.5, "style": 0.25}


@pytest.mark.parametrize("optimizer", OPTIMIZER_DEFAULTS)
def test_recorded_steps_end_with_the_weights_of_single_steps(small, tmp_path, as_on_gpu, optimizer):
    settings = SETTINGS | {"ema": 0.9, "schedule": "one-cycle"}
    config, repeater = TrainConfig.of(**settings, optimizer=optimizer), Repeater()
    as_on_gpu(Plan(None, 1, True, ""))
    train(config, small, tmp_path / "single")
    as_on_gpu(graphed(repeater))
    train(config, small, tmp_path / "recorded")
    assert equal(trained(tmp_path / "recorded"), trained(tmp_path / "single"))
    assert timeless(rows(tmp_path / "recorded")) == timeless(rows(tmp_path / "single"))
    # Eight of the ten steps have full batches.
    assert repeater.calls == ["warm up"] * 3 + ["capture"] + ["replay"] * 5


def test_soft_labels_and_digits_of_fonts_reach_the_recorded_step(small, tmp_path, as_on_gpu, teacher, fonts):
    config = TrainConfig(**SETTINGS, teacher=str(teacher), fonts=fonts, precision="bfloat16")
    as_on_gpu(Plan(None, 1, True, ""))
    train(config, small, tmp_path / "single")
    as_on_gpu(graphed(Repeater()))
    train(config, small, tmp_path / "recorded")
    assert equal(trained(tmp_path / "recorded"), trained(tmp_path / "single"))


def test_only_steps_of_the_recorded_sizes_are_repeated(small, tmp_path, as_on_gpu, fonts):
    """Of a batch of 5 images, not every step adds a drawn digit."""
    config, repeater = TrainConfig(**FAST | {"batch_size": 5, "epochs": 1}, fonts=fonts), Repeater()
    as_on_gpu(Plan(None, 1, True, ""))
    train(config, small, tmp_path / "single")
    as_on_gpu(graphed(repeater))
    train(config, small, tmp_path / "recorded")
    assert equal(trained(tmp_path / "recorded"), trained(tmp_path / "single"))
    assert 15 < repeater.calls.count("replay") < 40


@pytest.mark.parametrize("stop", [3, 7])
def test_resumed_run_of_recorded_steps_ends_with_the_same_weights(small, tmp_path, as_on_gpu, stop):
    """The first run stops before anything is recorded, the second one after it."""
    config = TrainConfig(**SETTINGS)
    as_on_gpu(graphed(Repeater()))
    train(config, small, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, small, tmp_path / "run", checkpoint_every=1, progress=Stop(stop))
    as_on_gpu(graphed(Repeater()))
    train(config, small, tmp_path / "run", resume=True)
    assert equal(trained(tmp_path / "run"), trained(tmp_path / "whole"))
    assert timeless(rows(tmp_path / "run")) == timeless(rows(tmp_path / "whole"))


def test_inputs_do_not_depend_on_how_many_steps_are_prepared_at_a_time(small, teacher, fonts):
    config = TrainConfig(**SETTINGS, rotate=5.0, mirror="both", teacher=str(teacher), fonts=fonts)
    state, batches = State.new(config, CPU), small.train.split(60)

    def tensors(at_a_time):
        return [
            (size, [tensor for part in parts for tensor in graph._tensors(part)])
            for size, parts in inputs_of_steps(state, batches, at_a_time)
        ]

    one_by_one = tensors(1)
    assert [size for size, _ in one_by_one] == [60, 60, 60, 60, 16]
    for at_a_time in (120, 200, 10_000):
        for (size, together), (expected, alone) in zip(tensors(at_a_time), one_by_one, strict=True):
            assert size == expected
            assert len(together) == len(alone) >= 3
            assert all(map(torch.equal, together, alone))


def test_images_of_many_steps_are_augmented_in_one_call(small, monkeypatch):
    calls = []
    apply = inputs.apply_changes
    monkeypatch.setattr(inputs, "apply_changes", lambda *a, **k: calls.append(len(a[0])) or apply(*a, **k))
    state = State.new(TrainConfig(**FAST), CPU)
    list(inputs_of_steps(state, small.train.split(64), 10_000))
    list(inputs_of_steps(state, small.train.split(64), 128))
    assert calls == [256, 128, 128]


def test_batch_in_parts_is_prepared_part_by_part(small, monkeypatch):
    monkeypatch.setattr(inputs, "PART_SIZE", 100)
    state = State.new(TrainConfig(**FAST), CPU)
    [(size, parts)] = inputs_of_steps(state, [small.train], 10_000)
    assert (size, [len(part.labels) for part in parts]) == (256, [100, 100, 56])


class NoReading(TorchDispatchMode):
    """Fails when a number is read from a tensor, which on a GPU waits for all work before it."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        assert operation not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), operation
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_step_reads_nothing_from_the_device(small, model):
    state = State.new(TrainConfig(**FAST | {"model": model}, label_smoothing=0.1), CPU)
    [(size, parts)] = inputs_of_steps(state, [first(small.train, 8)])
    parts = list(parts)
    with NoReading():
        set_rate_and_decay(state, 0.1)
        loss = take_step(state, parts, size)
    assert loss.isfinite()
    with NoReading(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        loss.item()


def test_losses_are_read_when_a_line_is_due_and_divergence_names_its_step(small, tmp_path, as_on_gpu, monkeypatch):
    reads = []
    read = Losses.read
    monkeypatch.setattr(Losses, "read", lambda losses: reads.append(read(losses)) or reads[-1])
    monkeypatch.setattr("training.loop.losses.SECONDS_BETWEEN_READINGS", 3600)
    as_on_gpu(graphed(Repeater()))
    train(TrainConfig(**SETTINGS), small, tmp_path / "run")
    assert [len(losses) for losses in reads] == [5, 5]
    config = TrainConfig.of(**SETTINGS, optimizer="mini-batch", learning_rate=1e30)
    with pytest.raises(DivergedError, match="not a number at step 2;"):
        train(config, small, tmp_path / "diverged")
    assert list((tmp_path / "diverged").iterdir()) == []


@pytest.mark.parametrize("name", OPTIMIZER_DEFAULTS)
def test_optimizer_state_of_a_gpu_goes_on_with_a_number_as_learning_rate(name):
    config = TrainConfig.of(optimizer=name)
    network = build("mlp")
    optimizer = build_optimizer(config, network)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group |= {"lr": torch.tensor(0.5)} | ({"capturable": True} if "capturable" in group else {})
    load_optimizer(optimizer, saved)
    for group in optimizer.param_groups:
        assert group["lr"] == config.learning_rate
        assert not group.get("capturable")
    rate = torch.tensor(0.5)
    optimizer.param_groups[0]["lr"] = rate
    load_optimizer(optimizer, saved)
    set_rate(optimizer, 0.125)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize(
    ("device", "batch_size", "processes", "wanted", "reason"),
    [
        ("cuda", 128, 1, False, "--no-graph"),
        ("cuda", 128, 2, True, "exchange their gradients"),
        ("cuda", 60_000, 1, True, "a batch of more than 4096 images is computed in parts"),
        ("cuda", 4096, 1, True, ""),
        ("cuda:1", 1, 1, True, ""),
    ],
)
def test_plan_says_why_steps_on_a_gpu_are_not_recorded(monkeypatch, device, batch_size, processes, wanted, reason):
    monkeypatch.setattr(distributed, "count", lambda: processes)
    monkeypatch.setattr(graph, "CudaGraph", lambda device: f"graph on {device}")
    plan = plan_for(torch.device(device), batch_size, wanted=wanted)
    assert plan.graph == (None if reason else f"graph on {device}")
    assert plan.reads_each_loss == (processes > 1)
    assert reason in plan.line
    assert plan.line.startswith("the steps run without a CUDA graph: " if reason else "each step is a CUDA graph")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_plan_without_a_gpu_is_to_take_one_step_after_the_other(device):
    assert plan_for(torch.device(device), 128, wanted=True) == Plan(None, 1, True, "")


@needs_gpu
@pytest.mark.parametrize("optimizer", OPTIMIZER_DEFAULTS)
def test_cuda_graph_ends_with_the_weights_of_single_steps(small, tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.are_deterministic_algorithms_enabled()
    use_deterministic_operations()
    try:
        for precision in ("float32", "bfloat16"):
            config = TrainConfig.of(**SETTINGS | {"model": "cnn", "precision": precision}, optimizer=optimizer)
            folders = [tmp_path / f"{precision}-{name}" for name in ("single", "recorded", "again", "resumed")]
            train(config, small, folders[0], device="cuda", graph=False)
            for folder in folders[1:3]:
                train(config, small, folder, device="cuda")
            with pytest.raises(KeyboardInterrupt):
                train(config, small, folders[3], device="cuda", checkpoint_every=1, progress=Stop(7))
            train(config, small, folders[3], device="cuda", resume=True)
            for folder in folders[1:]:
                assert equal(trained(folder), trained(folders[0]))
    finally:
        torch.use_deterministic_algorithms(before)


@needs_gpu
def test_images_on_a_gpu_change_as_on_a_cpu(small):
    gpu = torch.device("cuda")
    config = TrainConfig(**SETTINGS)
    results = []
    for device in (CPU, gpu):
        state = State.new(config, device)
        [(_, parts)] = inputs_of_steps(state, [Digits(small.train.images.to(device), small.train.labels.to(device))])
        [part] = parts
        results.append(part.images.cpu())
    torch.testing.assert_close(*results, atol=0.1, rtol=0)

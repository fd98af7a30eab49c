"""The examples of the tutorial: each runs as a user runs it, and its numbers are right."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional as F

from tests.support import ROOT
from training.networks import build

EXAMPLES = ROOT / "examples"
SEVEN = ["full-batch", "stochastic", "mini-batch", "momentum", "adagrad", "rmsprop", "adam"]


@pytest.fixture
def example(monkeypatch):
    """Return a function that imports an example. The example can import other examples, as when it is run as a file."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def run_example(run, tmp_path):
    """Return a function that runs an example, checks the plot that it saves, and returns what it printed."""

    def run_example(name, *arguments):
        done = run(
            "python", EXAMPLES / f"{name}.py", "--save", tmp_path / "plots" / f"{name}.png", *arguments, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        with Image.open(tmp_path / "plots" / f"{name}.png") as plot:
            plot.verify()
        return done.stdout

    return run_example


def test_autograd_prints_the_gradients_of_both_graphs(run_example):
    printed = run_example("autograd")
    assert "c = 12.5 " in printed
    assert "c  = 37.5 " in printed
    assert "b.grad = None" in printed
    assert "torch warns: The .grad attribute of a Tensor that is not a leaf" in printed


def test_only_the_leaf_of_the_first_graph_keeps_its_gradient(example):
    a, b, c = example("autograd").a_graph()
    assert [tensor.item() for tensor in (a, b, c)] == [5, 25, 12.5]
    assert a.grad == 2.5
    assert a.is_leaf
    assert not b.is_leaf


def test_retain_grad_keeps_all_gradients(example):
    tensors = example("autograd").kept_gradients()
    assert {name: tensor.item() for name, tensor in tensors.items()} == {"a": 5, "a2": 5, "b": 25, "c": 37.5}
    assert {name: tensor.grad.item() for name, tensor in tensors.items()} == {"a": 2.5, "a2": 5, "b": 0.5, "c": 1}


def test_no_grad_builds_no_graph(example):
    d = example("autograd").without_history()
    assert d == 312.5
    assert d.grad_fn is None


def test_torch_rejects_in_place_changes(example):
    on_leaf, on_kept = example("autograd").changed_in_place()
    assert "a leaf Variable that requires grad is being used in an in-place operation" in on_leaf
    assert "has been modified by an inplace operation" in on_kept


def test_gradients_add_up_until_they_are_zeroed(example):
    assert example("autograd").added_up() == [2.5, 5, 7.5, 2.5]


def test_linear_regression_finds_the_line_in_four_ways(run_example):
    lines = re.findall(r"^(.+?) +y = ([\d.]+) x \+ ([\d.]+)$", run_example("linear_regression"), re.MULTILINE)
    assert [name for name, _, _ in lines] == ["by hand", "autograd", "nn.Module", "solved"]
    for _, slope, intercept in lines:
        assert float(slope) == pytest.approx(3, rel=0.01)
        assert float(intercept) == pytest.approx(0.8, rel=0.01)


def test_three_ways_of_descent_take_the_same_steps(example):
    regression = example("linear_regression")
    x, y = regression.make_data()
    by_hand = regression.by_hand(x, y)
    assert by_hand.shape == (regression.STEPS + 1, 2)
    for way in (regression.by_autograd, regression.by_module):
        np.testing.assert_allclose(way(x, y), by_hand, rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_hand[-1], regression.solved(x, y), rtol=1e-4)
    np.testing.assert_allclose(regression.solved(x, y), np.polyfit(x, y, 1), rtol=1e-10)
    loss = regression.losses(by_hand, x, y)
    assert (np.diff(loss) <= 1e-15).all(), "every step lowers the loss"


def test_optimizers_prints_a_table_and_animates_the_paths(run_example, tmp_path):
    printed = run_example("optimizers", "--animate", tmp_path / "paths.gif")
    assert all(re.search(rf"^{name} +0%", printed, re.MULTILINE) for name in SEVEN if name != "stochastic")
    with Image.open(tmp_path / "paths.gif") as film:
        assert film.n_frames > 20


@pytest.mark.parametrize("name", SEVEN)
def test_rule_matches_torch_at_the_matching_rate(example, name):
    optimizers = example("optimizers")
    assert optimizers.difference(name, matched=True) < 1e-8
    differs = optimizers.difference(name, matched=False) > 0.01
    assert differs == (name in ("momentum", "adam"))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("full-batch", [2, -4]),
        ("momentum", [0.4, -0.48]),  # 0.8 · 0.4 + 0.2 · -4
        ("adagrad", [1, -4 / 20**0.5]),
        ("rmsprop", [2 / 0.8**0.5, -4 / 3.84**0.5]),  # 0.8 · 0.8 + 0.2 · 16
        ("adam", [0.4 / 0.8**0.5, -0.48 / 3.84**0.5]),
    ],
)
def test_rule_takes_the_steps_of_the_article(example, name, steps):
    memory = {}
    for gradient, step in zip((2, -4), steps, strict=True):
        taken = example("optimizers").RULES[name](torch.tensor(gradient, dtype=torch.float64), memory, 1)
        assert taken.item() == pytest.approx(step)


def test_landscape_has_two_hollows_and_the_right_one_is_deeper(example):
    optimizers = example("optimizers")
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    floor = optimizers.height(torch.stack([x, x**2 / 2], dim=-1))
    turns = floor.diff().sign().diff().nonzero().flatten() + 1
    left, ridge, right = x[turns].tolist()
    assert left < ridge < right
    assert ridge == pytest.approx(optimizers.RIDGE, abs=0.001)
    assert floor[turns[2]] < floor[turns[0]]


@pytest.mark.parametrize(
    ("name", "rate", "trapped"), [("full-batch", 0.05, True), ("stochastic", 0.1, False), ("momentum", 0.5, False)]
)
def test_noise_and_long_steps_leave_the_local_minimum(example, name, rate, trapped):
    share = example("optimizers").escaped(example("optimizers").walk(name, rate))
    assert (share == "0%") is trapped


def test_comparison_prints_and_saves_a_row_for_each_optimizer(run_example, tmp_path):
    printed = run_example("compare_optimizers", "--subset", 500, "--epochs", 1, "--seeds", 2, "--workers", 1)
    assert "500 training images, 2 seeds" in printed
    assert re.findall(r"^\| ([a-z-]+) \| [\d,]+ \| [\d.]+ ±", printed, re.MULTILINE) == SEVEN
    table = (tmp_path / "plots" / "compare_optimizers.md").read_text()
    assert printed.strip() in table
    assert "(compare_optimizers.png)" in table


def test_file_that_cannot_hold_a_plot_is_an_error_before_the_comparison(example, tmp_path):
    done = CliRunner().invoke(example("compare_optimizers").main, ["--save", str(tmp_path / "results.md")])
    assert done.exit_code == 2
    assert f"name a file such as {tmp_path / 'results.png'}" in done.stderr


def test_comparison_has_no_more_images_than_there_are(example):
    """It would print a number of images that it has not used."""
    assert CliRunner().invoke(example("compare_optimizers").main, ["--subset", "55001"]).exit_code == 2


def test_stacked_gradients_equal_those_of_autograd(example):
    compare = example("compare_optimizers")
    torch.manual_seed(0)
    networks = [build("mlp") for _ in range(3)]
    images, labels = torch.randn(5, 784), torch.tensor([3, 1, 4, 1, 5])
    for network in networks:
        F.cross_entropy(network(images.view(-1, 1, 28, 28)), labels).backward()
    weights = [
        torch.stack([weight.detach().view(len(weight), -1) for weight in same])
        for same in zip(*(network.parameters() for network in networks), strict=True)
    ]
    stacked = compare.gradients(weights, images.T, torch.eye(10)[labels].T)
    for run, network in enumerate(networks):
        for gradient, weight in zip(stacked, network.parameters(), strict=True):
            torch.testing.assert_close(gradient[run].view_as(weight), weight.grad)


def test_stacked_training_equals_training_with_torch(example):
    """The middle rate gives the same accuracy as a single network with torch's optimizer."""
    compare = example("compare_optimizers")
    accuracies = compare.train("mini-batch", seed=1, epochs=2, subset=1000)
    assert accuracies.shape == (2, 2, len(compare.LADDER))

    (images, labels), *held_out = compare.pixels_and_labels(1000)
    torch.manual_seed(1)
    network = build("mlp")
    optimizer = torch.optim.SGD(network.parameters(), lr=compare.MIDDLE_RATE["mini-batch"])
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(compare.BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    for kind, (pixels, truth) in enumerate(held_out):
        alone = (network(pixels).argmax(dim=1) == truth).double().mean()
        # Rounding may change the prediction of an image that lies between two classes.
        assert accuracies[kind, -1, 3] == pytest.approx(alone.item(), abs=0.002)


def test_best_rate_is_chosen_on_the_validation_set_only(example):
    results = torch.zeros(2, 2, 3, 7)  # seeds, validation and test, epochs, rates
    results[:, 0, 1, 4] = 1
    results[:, 1, 1, 2] = 1
    rung, accuracy = example("compare_optimizers").best(results, epoch=2)
    assert rung == 4
    assert accuracy.tolist() == [0, 0]


def test_committed_results_are_from_the_full_comparison():
    table = (ROOT / "benchmarks" / "results" / "optimizers.md").read_text()
    assert "55,000 training images, 3 seeds" in table
    assert "after 1 epoch | after 5 epochs | after 20 epochs" in table
    assert all(f"| {name} |" in table for name in SEVEN)


def test_digits_trains_exports_and_serves(run_example, tmp_path):
    printed = run_example("digits", "--output", tmp_path / "run")
    assert int(re.search(r"test: (\d+) of 10000 correct", printed)[1]) > 9400
    assert "served: [7, 2, 1, 0, 4, 1, 4, 9," in printed
    assert (tmp_path / "run" / "models" / "mnist" / "1" / "manifest.json").exists()
    assert len((EXAMPLES / "digits.py").read_text().splitlines()) < 60
    # The second time it finds the run and its version, and serves them.
    again = run_example("digits", "--output", tmp_path / "run")
    assert "served: [7, 2, 1, 0, 4, 1, 4, 9," in again
    assert [path.name for path in (tmp_path / "run" / "models" / "mnist").glob("[0-9]*")] == ["1"]


def test_readme_lists_the_examples_in_order():
    text = (EXAMPLES / "README.md").read_text()
    listed = re.findall(r"^## \d\. .*\((\w+\.py)\)$", text, re.MULTILINE)
    assert listed == ["autograd.py", "linear_regression.py", "optimizers.py", "compare_optimizers.py", "digits.py"]
    assert sorted(listed) == sorted(file.name for file in EXAMPLES.glob("*.py"))
    assert text.rstrip().endswith("mnist-train\n```")

"""Autograd: which tensors keep their gradient, where gradients go, and three surprises for a beginner.

    python examples/autograd.py [--save graph.png]

Every operation on a tensor that requires a gradient leaves a node behind. The nodes form a graph, from the
result back to the tensors it began with, its leaves. backward() walks the graph from the result to the
leaves, multiplies derivatives on the way (the chain rule), and adds what arrives at each leaf to its .grad.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import click
import torch
from matplotlib.figure import Figure
from torch import Tensor


def leaf(value: float) -> Tensor:
    """Return a tensor that we make ourselves, not by an operation, and whose gradient we want."""
    return torch.tensor(value, requires_grad=True)


def a_graph() -> tuple[Tensor, Tensor, Tensor]:
    """b = 5a and c = b/2, so dc/da = 5/2; only the leaf a keeps its gradient."""
    a = leaf(5.0)
    b = 5 * a
    c = b / 2
    for name, tensor in {"a": a, "b": b, "c": c}.items():
        made_by = tensor.grad_fn.name() if tensor.grad_fn else "us: a leaf"
        click.echo(f"  {name} = {tensor.item():<5} made by {made_by}")
    c.backward()
    click.echo(f"  a.grad = {a.grad}: dc/da = 1/2 · 5")
    # backward() needed b's gradient, 1/2, on the way to a, and then dropped it. Torch warns when we read b.grad.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        click.echo(f"  b.grad = {b.grad}: b is not a leaf")
    click.echo(f"    torch warns: {str(caught[0].message).partition('. ')[0]}.")
    return a, b, c


def kept_gradients() -> dict[str, Tensor]:
    """c = b/2 + 5·a2 has two leaves; retain_grad() before backward() keeps the gradients in between too."""
    a, a2 = leaf(5.0), leaf(5.0)
    b = 5 * a
    c = b / 2 + 5 * a2
    b.retain_grad()
    c.retain_grad()
    c.backward()
    tensors = {"a": a, "a2": a2, "b": b, "c": c}
    for name, tensor in tensors.items():
        click.echo(f"  {name:2} = {tensor.item():<5} dc/d{name} = {tensor.grad.item()}")
    return tensors


def without_history() -> Tensor:
    """Under no_grad() the numbers are the same, but no graph is built: it costs no memory, and backward() fails."""
    a = leaf(5.0)
    b = 5 * a
    with torch.no_grad():
        d = b * (b / 2)
    click.echo(f"  d = b·c = {d.item()}, requires_grad = {d.requires_grad}, grad_fn = {d.grad_fn}")
    try:
        d.backward()
    except RuntimeError as error:
        click.echo(f"  d.backward() fails: {error}")
    return d


def changed_in_place() -> list[str]:
    """Two changes in place that torch rejects, and the way out of each."""
    errors = []

    # The graph starts at its leaves. A leaf with a new value would not fit the graph, so torch rejects it at once.
    a = leaf(5.0)
    try:
        a += 1
    except RuntimeError as error:
        errors.append(str(error))
    # The way out: tell torch not to differentiate this change. Every optimizer does so.
    with torch.no_grad():
        a += 1

    # The derivative of exp is exp itself, so its node keeps the result. Torch counts the changes of every
    # tensor, and backward() finds that the kept result has changed.
    a = leaf(5.0)
    b = a.exp()
    b += 1
    try:
        b.backward()
    except RuntimeError as error:
        errors.append(str(error))
    # The way out: b = b + 1 makes a new tensor and does not change the kept result.
    b = a.exp()
    b = b + 1
    b.backward()
    assert a.grad == a.exp()

    for what, error in zip(("a += 1 on a leaf", "b += 1 on a kept value"), errors, strict=True):
        click.echo(f"  {what}: {error.partition(':')[0]}")
    return errors


def added_up() -> list[float]:
    """backward() adds to .grad. If .grad is not set to zero, every step contains the gradients of all earlier steps."""
    a = leaf(5.0)
    seen = []
    for _ in range(3):
        # backward() frees the graph, so each round builds a new one.
        (5 * a / 2).backward()
        seen.append(a.grad.item())
    a.grad = None  # what optimizer.zero_grad() does
    (5 * a / 2).backward()
    seen.append(a.grad.item())
    click.echo(f"  three times backward(): {seen[:3]}; zeroed, then once more: {seen[3]}")
    # This is useful: a batch that is too large for memory can be split into parts, whose gradients add up.
    return seen


def picture(tensors: dict[str, Tensor]) -> Figure:
    """Draw the graph of c, with the values of the forward pass and the gradients of the backward pass."""
    figure = Figure(figsize=(7, 3), dpi=80)
    axes = figure.subplots()
    axes.set(xlim=(-0.6, 5.6), ylim=(-0.6, 2.6))
    axes.set_axis_off()
    places = {"a": (0, 2), "b": (2.5, 2), "a2": (0, 0), "c": (5, 1)}
    edges = {("a", "b"): "· 5", ("b", "c"): "/ 2", ("a2", "c"): "· 5"}
    for (start, end), operation in edges.items():
        arrow = {"arrowstyle": "->", "shrinkA": 38, "shrinkB": 38}
        axes.annotate("", places[end], places[start], arrowprops=arrow)
        (x0, y0), (x1, y1) = places[start], places[end]
        axes.text((x0 + x1) / 2, (y0 + y1) / 2 + 0.15, operation, ha="center")
    for name, (x, y) in places.items():
        tensor = tensors[name]
        axes.text(x, y + 0.12, f"{name} = {tensor.item():g}", ha="center", weight="bold")
        axes.text(x, y - 0.28, f"dc/d{name} = {tensor.grad.item():g}", ha="center", color="tab:red")
    axes.set_title("c = b/2 + 5·a2: values forward (black), gradients back (red)")
    return figure


@click.command()
@click.option(
    "--save", type=click.Path(path_type=Path), help="Draw the second graph, with its gradients, to this file."
)
def main(save: Path | None) -> None:
    """Run the five experiments."""
    click.echo("1. c = b/2 with b = 5a")
    a_graph()
    click.echo("2. c = b/2 + 5·a2, gradients kept by retain_grad()")
    tensors = kept_gradients()
    click.echo("   The tutorial shows c = 37.5 for the first graph. That is this graph's value; the first gives 12.5.")
    click.echo("3. no_grad() leaves out the graph")
    without_history()
    click.echo("4. Changes in place break it")
    changed_in_place()
    click.echo("5. Gradients add up until they are zeroed")
    added_up()
    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        picture(tensors).savefig(save)


if __name__ == "__main__":
    main()

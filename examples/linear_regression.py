"""The line y = 3x + 0.8, found in four ways that must agree.

    python examples/linear_regression.py [--save line.png]

Three ways descend: they start with slope and intercept zero and take steps against the gradient of the mean
squared error. They differ only in who computes the gradient and who takes the step, we or torch. The fourth way
needs no steps: for a line, the lowest error has a formula.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

SLOPE, INTERCEPT = 3.0, 0.8
RATE = 0.5  # Above 0.79, for x in 0..1, each step overshoots by more than the one before.
STEPS = 200

Array = np.ndarray


def make_data(count: int = 500) -> tuple[Array, Array]:
    """Return points near the line: ``x`` and ``y``, each ``[count]``."""
    random = np.random.default_rng(0)
    x = random.random(count)
    return x, SLOPE * x + INTERCEPT + 0.05 * random.standard_normal(count)


def by_hand(x: Array, y: Array) -> Array:
    """Return slope and intercept after each step, ``[STEPS + 1, 2]``, with the gradient derived on paper."""
    slope = intercept = 0.0
    path = [(slope, intercept)]
    for _ in range(STEPS):
        error = slope * x + intercept - y
        # The mean of error², differentiated: 2 · error · (what the parameter is multiplied with).
        slope_gradient = 2 * (error * x).mean()
        intercept_gradient = 2 * error.mean()
        slope -= RATE * slope_gradient
        intercept -= RATE * intercept_gradient
        path.append((slope, intercept))
    return np.array(path)


def by_autograd(x: Array, y: Array) -> Array:
    """Return the same steps, with the gradient computed by autograd."""
    # The numbers are float64, as in NumPy. Torch's default, float32, would round differently.
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    slope, intercept = (torch.zeros((), dtype=x.dtype, requires_grad=True) for _ in range(2))
    path = [(slope.item(), intercept.item())]
    for _ in range(STEPS):
        loss = (slope * x + intercept - y).square().mean()
        loss.backward()
        with torch.no_grad():  # The step itself must not be differentiated.
            for parameter in (slope, intercept):
                parameter -= RATE * parameter.grad
                parameter.grad = None  # Otherwise the next gradient would be added to this one.
        path.append((slope.item(), intercept.item()))
    return np.array(path)


class Line(nn.Module):
    """y = slope · x + intercept. Both start at zero, as in the other ways."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, dtype=torch.float64)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y ``[N, 1]`` for x ``[N, 1]``."""
        return self.linear(x)


def by_module(x: Array, y: Array) -> Array:
    """Return the same steps. Torch computes the gradient and takes the step, as for every network."""
    # One row for each sample, and one column for each feature (here only x).
    x, y = torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y).unsqueeze(1)
    line = Line()
    optimizer = torch.optim.SGD(line.parameters(), lr=RATE)
    path = [(line.linear.weight.item(), line.linear.bias.item())]
    for _ in range(STEPS):
        optimizer.zero_grad()
        # The trap: if y had the shape [N], this would be the mean over N × N differences.
        loss = nn.functional.mse_loss(line(x), y)
        loss.backward()
        optimizer.step()
        path.append((line.linear.weight.item(), line.linear.bias.item()))
    return np.array(path)


def solved(x: Array, y: Array) -> Array:
    """Return the slope and intercept with the lowest error, ``[2]``. There, both derivatives are zero."""
    slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var()
    return np.array([slope, y.mean() - slope * x.mean()])


def losses(path: Array, x: Array, y: Array) -> Array:
    """Return the mean squared error of each line of ``path [K, 2]``."""
    slope, intercept = path.T[:, :, None]  # A column each, so that every line is compared with every point.
    return ((slope * x + intercept - y) ** 2).mean(axis=1)


def picture(x: Array, y: Array, path: Array, best: Array) -> Figure:
    """Draw the points with the lines of some steps, and the loss of each step."""
    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    points, curve = figure.subplots(1, 2)
    points.scatter(x, y, s=4, color="silver")
    ends = np.array([0.0, 1.0])
    for step in (0, 1, 3, 10, 30, STEPS):
        slope, intercept = path[step]
        points.plot(ends, slope * ends + intercept, label=f"step {step}")
    points.set(xlabel="x", ylabel="y", title=f"y = {best[0]:.3f} x + {best[1]:.3f}")
    points.legend()
    loss = losses(path, x, y)
    curve.semilogy(loss, label="descent")
    curve.axhline(losses(best[None], x, y).item(), linestyle="--", color="tab:gray", label="solved: the noise remains")
    curve.set(xlabel="step", ylabel="mean squared error", title="Loss")
    curve.legend()
    return figure


@click.command()
@click.option("--save", type=click.Path(path_type=Path), help="Draw data, line and loss to this file.")
def main(save: Path | None) -> None:
    """Find the line in four ways."""
    x, y = make_data()
    paths = {"by hand": by_hand(x, y), "autograd": by_autograd(x, y), "nn.Module": by_module(x, y)}
    best = solved(x, y)
    ends = {name: path[-1] for name, path in paths.items()} | {"solved": best}
    for name, (slope, intercept) in ends.items():
        click.echo(f"{name:10} y = {slope:.6f} x + {intercept:.6f}")
    apart = max(np.abs(path - paths["by hand"]).max() for path in paths.values())
    click.echo(f"The {STEPS} steps of the first three differ by {apart:.0e} at most: rounding.")
    click.echo(f"All are near {SLOPE:g} and {INTERCEPT:g}, but not equal: they also fit the noise of the points.")
    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        picture(x, y, paths["by hand"], best).savefig(save)


if __name__ == "__main__":
    main()

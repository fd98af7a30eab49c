"""What the command mnist-train does with its settings, and prints about the run. Importing this file loads torch."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from training.checkpoint import CheckpointError
from training.command import is_speaker, leave, print_output
from training.config import ConfigError, TrainConfig, check_name
from training.data.errors import DataError
from training.data.own.cli import say_findings
from training.device import check_device, use_deterministic_operations
from training.evaluate import Evaluation
from training.loop import distributed
from training.loop.errors import TrainingError
from training.loop.progress import Progress
from training.loop.resume import begin_or_resume
from training.loop.train import train
from training.memory import is_memory_error
from training.networks import NETWORKS
from training.origin import RECORD
from training.plot_process import PlotProcess
from training.reasons import first_line
from training.track.shown import TrackingError
from training.track.tracking import tracked


def check_settings(config: TrainConfig, device: str, *, deterministic: bool) -> None:
    """Check the settings that only torch can check. Let a GPU give equal results in every run if that is asked for.

    Raises:
        UsageError: there is no such network or device.
    """
    try:
        check_name("model", config.model, NETWORKS)
        if deterministic:
            use_deterministic_operations()
        check_device(device)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def explained(output: Path, *, resumed: bool) -> Iterator[None]:
    """Turn the errors of the block into one line, which says how to go on with the run in ``output``."""
    try:
        yield
    except (TrainingError, CheckpointError, DataError, TrackingError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"{error}. The files in the run folder are complete. Remove the cause and continue with: {_resume(resumed)}"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise click.ClickException(
            f"there is not enough memory ({first_line(error)}); use a smaller --batch-size or --model, "
            "or a machine with more memory"
        ) from error
    except KeyboardInterrupt as stop:
        if is_speaker():
            kept = f"The last checkpoint is in {output}. Continue with" if (output / "last.pt").exists() else "Restart"
            click.echo(f"\nStopped. {kept}: {_resume(resumed)}", err=True)
        leave(stop)


def train_run(
    config: TrainConfig,
    chosen: Mapping[str, Any],
    output: Path,
    folder: Path | None,
    *,
    only_folder: bool,
    has_chosen: bool,
    resume: bool,
    checkpoint_every: int,
    device: str,
    graph: bool,
    track: Sequence[str],
    progress: Progress,
    plots: PlotProcess | None,
) -> Evaluation:
    """Train a network, or continue the run in ``output``, and return its result on the test set.

    Args:
        chosen: the settings that the user has chosen, as flags or by a recipe.
        folder: where to look for a known data set first.
        only_folder: whether to look for it nowhere else.
        has_chosen: whether the user has chosen how to train, so that no recipe needs to be recommended.
    """
    if resume and is_speaker() and not (output / "last.pt").exists():
        click.echo(f"{output}: holds no run to resume; starting a new one", err=True)
    tell = partial(say_findings, config=config, has_chosen=has_chosen)
    with distributed.processes(device) as device:
        with distributed.first_of_machine_first():
            config, splits = begin_or_resume(
                config,
                chosen,
                output,
                folder,
                only_folder=only_folder,
                stage=progress.stage,
                tell=tell if is_speaker() else lambda _: None,
            )
        return train(
            config,
            splits,
            output,
            resume=resume,
            checkpoint_every=checkpoint_every,
            device=device,
            graph=graph,
            progress=progress,
            plots=plots,
            tracking=tracked(track if is_speaker() else (), config.asdict(), output, progress.line),
        )


def print_finished(output: Path, test: Evaluation) -> None:
    """Print the result of a finished run on the test set, where the run is, and the next command."""
    print_output(
        f"Test set: Avg. loss: {test.loss:.4f}, "
        f"Accuracy: {test.correct}/{len(test.labels)} ({test.accuracy:.2%})\n"
        f"{about_losses(output)}\n\n"
        f"Run folder  {output}\n"
        f"Next        {shlex.join(['mnist-export', str(output), '--repository', 'models'])}"
    )


def about_losses(output: Path) -> str:
    """Return two sentences on the losses of a finished run, because each is measured in another way."""
    calibration = json.loads((output / RECORD).read_text())["calibration"]
    return (
        "The training loss is a mean over the epoch, while the weights change; the validation loss is measured after "
        f"it.\nmnist-export divides the logits by {calibration['temperature']:.3f}, so that the confidences match the "
        "accuracy. You need to do nothing for that. The loss is then "
        f"{calibration['result']['test']['loss']:.4f}."
    )


def _resume(resumed: bool) -> str:
    """Return this command line with --resume."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(command if resumed else [*command, "--resume"])

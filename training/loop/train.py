"""train(): the loop of a training run, from images to a run folder.

A run folder holds

    last.pt          everything that a resume needs
    model.pt         the weights to use
    metrics.jsonl    one line per epoch
    calibration.pt   temperature, novelty score and acceptance thresholds, for the export
    data.npz  replay.npz  classes.png   the user's own pictures as the network saw them
    curves.png  confusion.png  mistakes.png  reliability.png    plots
    run.json         config, versions, digests of the data, result
    tensorboard  mlflow.json    with --track: the events for TensorBoard, the id of the run in MLflow
    teacher-cache    if another run has this one as its first teacher: images and soft labels
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import write_atomically
from training.config import AUTO, TrainConfig
from training.data.digits import Splits
from training.distill.cache import TeacherCache
from training.evaluate import Evaluation, evaluate
from training.loop import distributed
from training.loop.batches import batches
from training.loop.errors import DivergedError, TrainingError
from training.loop.folder import check_free, made, remove_leftovers
from training.loop.graph import plan_for, step_of
from training.loop.inputs import inputs_of_steps
from training.loop.lock import locked
from training.loop.losses import Losses
from training.loop.optimizers import rate_at
from training.loop.progress import Progress, epoch_line
from training.loop.record import finish, write_metrics
from training.loop.resume import load_state
from training.loop.start import forgotten
from training.loop.state import State
from training.loop.step import set_rate_and_decay
from training.networks import multiplications, parameter_count
from training.openmp import at_most_threads, threads_for
from training.plot_process import PlotProcess
from training.precision import Choice, choose_precision
from training.track.tracking import Tracking


def train(
    config: TrainConfig,
    splits: Splits,
    output: Path,
    *,
    resume: bool = False,
    checkpoint_every: int = 0,
    device: str = "cpu",
    graph: bool = True,
    progress: Progress | None = None,
    plots: PlotProcess | None = None,
    tracking: AbstractContextManager[Tracking] | None = None,
) -> Evaluation:
    """Train a network, write the run folder ``output``, and return the evaluation on the test set.

    The test set does not influence the run.

    Args:
        resume: continue from ``output/last.pt`` if it exists.
        checkpoint_every: number of steps between checkpoints within an epoch; 0 saves only after each epoch.
        graph: whether the steps are a CUDA graph, if that is possible.
        plots: the process that draws the plots, if the caller has started one.
        tracking: shows the run elsewhere while it trains. It is entered when no other process trains in the folder.

    Raises:
        TrainingError: the folder holds another run, another process trains there, or the loss is no longer finite.
        CheckpointError: the checkpoint to resume from or a teacher is damaged.
        TrackingError: the run cannot be shown.
        OSError: a file could not be written. The previous checkpoint is still there.
    """
    target, progress = torch.device(device), progress or Progress(None)
    check_free(output, resume=resume)
    last = output / "last.pt"
    precision, reason = _precision(config, target, last, progress)
    state = State.new(
        replace(config, precision=precision), target, splits.labels, splits=splits, is_resumed=last.exists()
    )
    state.precision_reason = reason
    if not last.exists():
        lines = [forgotten(config, splits.labels), *(splits.replay.left_out if splits.replay else ())]
        for line in filter(None, lines):
            progress.line(line)
    state.threads = threads_for(multiplications(state.network) * (config.batch_size or len(splits.train)))
    is_first = distributed.is_first()
    with (
        made(output),
        locked(output) if is_first else nullcontext(),
        # Only the first of several processes draws.
        (plots or PlotProcess()) if is_first else nullcontext() as plots,
    ):
        check_free(output, resume=resume)
        if is_first:
            remove_leftovers(output, is_new=not last.exists())
        with tracking or nullcontext() as shown:
            for name, content in splits.files.items() if is_first else ():
                write_atomically(output / name, content)
            with at_most_threads(state.threads):
                _train(state, splits, output, checkpoint_every, target, graph, progress, shown)
            return finish(state, splits, output, target, plots, progress, shown)


def _precision(config: TrainConfig, device: torch.device, last: Path, progress: Progress) -> Choice:
    """Return the precision of a run and the reason for it. A run that is resumed keeps the one it began with."""
    if config.precision != AUTO:
        return Choice(config.precision, "")
    if last.exists():
        return Choice(load_state(last)["config"]["precision"], "")
    # The processes may differ in speed, and all need the same precision.
    choice = Choice(*(distributed.from_first(text) for text in choose_precision(config, device)))
    progress.line(f"precision: {choice.precision}, because {choice.reason}")
    return choice


def _train(
    state: State,
    splits: Splits,
    output: Path,
    checkpoint_every: int,
    target: torch.device,
    graph: bool,
    progress: Progress,
    tracking: Tracking | None,
) -> None:
    config, last = state.config, output / "last.pt"
    if last.exists():
        state.load(last)
    if not distributed.agree(state.step, target):
        raise TrainingError(
            f"--output {output}: the processes found different checkpoints there; name a folder that they share"
        )

    images, validation = splits.train.to(target), splits.validation.to(target)
    cache = TeacherCache(config, state.teacher, images) if state.teacher and config.teacher_cache else None
    batch_size = min(config.batch_size or len(images), len(images))
    steps_per_epoch = math.ceil(len(images) / batch_size)
    total_steps = steps_per_epoch * config.epochs
    progress.line(
        f"{config.model}: {parameter_count(state.network):,} parameters, {len(images):,} training images, "
        f"{len(validation):,} for validation, {target} with {state.threads} thread{'s' * (state.threads > 1)}"
    )
    plan = plan_for(target, batch_size, wanted=graph)
    if plan.line:
        progress.line(plan.line)
    take, losses = step_of(state, batch_size, plan.graph), Losses(each=plan.reads_each_loss)
    progress.begin(total_steps, state.step)
    if tracking:
        tracking.begin(state.history)
    if state.extended and state.extended[-1]["step"] == state.step:
        progress.line(
            f"epochs: {state.extended[-1]['epochs']} before, {config.epochs} now. The learning rate continues at "
            f"{rate_at(config, state.step / total_steps):.2g}, as at this step of a run of {config.epochs} epochs"
        )
    state.network.train()

    while state.step < total_steps:
        epoch, first = divmod(state.step, steps_per_epoch)
        started = time.monotonic() - state.epoch_seconds
        ahead = batches(config, cache[epoch] if cache else images, batch_size, epoch, first)
        for size, parts in inputs_of_steps(state, ahead, plan.images_at_a_time):
            rate = rate_at(config, state.step / total_steps)
            set_rate_and_decay(state, rate)
            losses.add(take(parts, size), size)
            state.step += 1
            ends_epoch = state.step % steps_per_epoch == 0
            # The last step of an epoch is saved below, together with the epoch's row.
            saves = checkpoint_every and state.step % checkpoint_every == 0 and not ends_epoch
            if losses.due or saves or ends_epoch:
                loss = _read(losses, state, last)
                progress.step(f"{epoch + 1}/{config.epochs}", state.step, loss, rate)
            if saves:
                state.epoch_seconds = time.monotonic() - started
                state.save(last)

        row: dict[str, Any] = {"epoch": epoch + 1, "train_loss": state.epoch_loss / len(images), "rate": rate}
        if len(validation):
            evaluation = evaluate(state.result, validation)
            if not math.isfinite(evaluation.loss):
                raise DivergedError(config, state.step, last)
            row |= {"validation_loss": evaluation.loss, "validation_accuracy": evaluation.accuracy}
        row["seconds"] = round(time.monotonic() - started, 3)
        state.history.append(row)
        state.epoch_loss = state.epoch_seconds = 0.0
        state.save(last)
        write_metrics(output, state.history)
        if tracking:
            tracking.epoch(row)
        progress.line(epoch_line(row, config.epochs))


def _read(losses: Losses, state: State, last: Path) -> float:
    """Add the losses of the latest steps to those of the epoch, and return the last one.

    Raises:
        DivergedError: a loss is not finite.
    """
    latest = losses.read()
    for step, (loss, images) in enumerate(latest, state.step - len(latest)):
        if not math.isfinite(loss):
            raise DivergedError(state.config, step, last)
        state.epoch_loss += loss * images
    return latest[-1][0]

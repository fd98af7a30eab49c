"""The optimizer step as a CUDA graph: its kernels are recorded once, and each later step starts them all together.

A step of the cnn has more than a hundred kernels of a few microseconds. Python takes longer to start them one by one
than the GPU takes to run them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from training.data.digits import Digits
from training.loop import distributed
from training.loop.inputs import GPU_IMAGES_AT_A_TIME, PART_SIZE, Inputs
from training.loop.state import State
from training.loop.step import take_step

# cuDNN, cuBLAS and the optimizer allocate memory in their first calls, which cannot be recorded.
WARM_UP_STEPS = 3

Work = Callable[[], Tensor]
Step = Callable[[Iterable[Inputs], int], Tensor]
"""Takes the parts of a step and its number of images, and returns the mean loss."""


class Graph(Protocol):
    """Records work once, and repeats it."""

    def warm_up(self, work: Work) -> Tensor:
        """Do the work as it will be recorded, and return its result."""
        ...

    def capture(self, work: Work) -> Tensor:
        """Record the work without doing it. Return the tensor that each repetition writes its result to."""
        ...

    def replay(self) -> None:
        """Do the recorded work."""
        ...


class CudaGraph:
    """A graph of CUDA kernels (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)."""

    def __init__(self, device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        # Libraries keep a handle for each stream, so the work is warmed up and recorded on the same one.
        self._stream = torch.cuda.Stream(device)
        # torch warns of steps outside of a recording. The steps of the warm-up are such steps, and train the network.
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")

    def warm_up(self, work: Work) -> Tensor:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def capture(self, work: Work) -> Tensor:
        with torch.cuda.graph(self._graph, stream=self._stream):
            return work()

    def replay(self) -> None:
        self._graph.replay()


def why_not_graphed(batch_size: int, *, wanted: bool) -> str:
    """Return why the steps of a run on a GPU cannot be a CUDA graph; empty if they can."""
    if not wanted:
        return "--no-graph"
    if distributed.count() > 1:
        return "the processes exchange their gradients in each step"
    if batch_size > PART_SIZE:
        return f"a batch of more than {PART_SIZE} images is computed in parts"
    return ""


class Plan(NamedTuple):
    """How the steps of a run are taken. The results do not depend on it, except for rounding."""

    graph: Graph | None
    """Repeats the recorded kernels of a step; None if Python starts the kernels of each step."""
    images_at_a_time: int
    """Number of images that are augmented in one call, at least those of one step."""
    reads_each_loss: bool
    """Whether the loss of each step is read at once, which waits for the step."""
    line: str
    """What the user is told; empty where there is nothing to tell."""


def plan_for(device: torch.device, batch_size: int, *, wanted: bool) -> Plan:
    """Return the plan for a run on ``device``; ``wanted`` says whether the steps are to be a CUDA graph."""
    if device.type != "cuda":
        return Plan(None, 1, True, "")
    reason = why_not_graphed(batch_size, wanted=wanted)
    return Plan(
        None if reason else CudaGraph(device),
        GPU_IMAGES_AT_A_TIME,
        # Several processes must find at the same step that the loss is no longer finite.
        distributed.count() > 1,
        f"the steps run without a CUDA graph: {reason}" if reason else "each step is a CUDA graph",
    )


def step_of(state: State, batch_size: int, graph: Graph | None) -> Step:
    """Return the function that takes the steps of a run."""
    if graph:
        return GraphedStep(state, batch_size, graph)
    return lambda parts, size: take_step(state, parts, size)


class GraphedStep:
    """Takes the first steps as usual, then records one, and repeats it for every later batch of the same size.

    The recorded kernels read their inputs from the same memory each time, so each batch is copied there. The learning
    rate and the decay of the average are tensors, which are filled before each step. The last batch of an epoch may be
    smaller, and of a small batch, not every step adds drawn images. A step of other sizes is taken as usual.
    """

    def __init__(self, state: State, batch_size: int, graph: Graph) -> None:
        self._state, self._batch_size, self._graph = state, batch_size, graph
        self._steps_left = WARM_UP_STEPS
        self._recorded: tuple[Inputs, Tensor] | None = None

    def __call__(self, parts: Iterable[Inputs], size: int) -> Tensor:
        """Take a step on its one part, and return the mean loss before the step."""
        [inputs] = parts
        if size != self._batch_size:
            return self._take(inputs)
        if self._steps_left:
            self._steps_left -= 1
            return self._graph.warm_up(lambda: self._take(inputs))
        if self._recorded is None:
            buffers = _copied(inputs)
            self._recorded = buffers, self._graph.capture(lambda: self._take(buffers))
        buffers, loss = self._recorded
        if _shapes(buffers) != _shapes(inputs):
            return self._take(inputs)
        for buffer, tensor in zip(_tensors(buffers), _tensors(inputs), strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self._graph.replay()
        # The next step writes its loss to the same memory.
        return loss.clone()

    def _take(self, inputs: Inputs) -> Tensor:
        return take_step(self._state, [inputs], len(inputs.labels))


def _tensors(inputs: Inputs) -> list[Tensor]:
    soft_labels, drawn = inputs.soft_labels, inputs.drawn
    return [
        *(inputs.images, inputs.labels),
        *([] if soft_labels is None else [soft_labels]),
        *([drawn.images, drawn.labels] if drawn else []),
    ]


def _shapes(inputs: Inputs) -> list[torch.Size]:
    return [tensor.shape for tensor in _tensors(inputs)]


def _copied(inputs: Inputs) -> Inputs:
    soft_labels, drawn = inputs.soft_labels, inputs.drawn
    return Inputs(
        inputs.images.clone(),
        inputs.labels.clone(),
        None if soft_labels is None else soft_labels.clone(),
        drawn and Digits(drawn.images.clone(), drawn.labels.clone()),
    )

"""Training in several processes: each takes a part of every batch. The weights are those that one process would give.

torchrun starts the processes and sets their ranks. Without torchrun the functions here do nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.command import SIGNALS, is_first_of_machine, is_one_of_several, is_speaker


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the other processes if torchrun started this one. The backend is nccl on GPUs and gloo elsewhere.

    Yields:
        the device of this process. With ``cuda``, each process takes the GPU of its local rank.
    """
    if not is_one_of_several():
        yield device
        return
    if not is_speaker():
        # A process that waits for the others in torch would not notice a signal. So the system ends it. The first
        # process then gets an error where it waits, and says that the run was stopped.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    yield device
    # After an error the other processes may be gone, and this call would wait for them.
    dist.destroy_process_group()


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """Run the block in the first process of each machine, and then in the others, which print nothing.

    Use it for a download: the others find the files in the cache.
    """
    if count() == 1:
        yield
    elif is_first_of_machine():
        yield
        dist.barrier()
    else:
        dist.barrier()
        with Path(os.devnull).open("w") as nothing, redirect_stderr(nothing):
            yield


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this is the process that writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(batch: Tensor) -> Tensor:
    """Return this process's part of ``batch`` ``[N, ...]``. It is empty if there are more processes than images."""
    return batch.tensor_split(count())[dist.get_rank()] if count() > 1 else batch


def total(value: Tensor) -> Tensor:
    """Return the sum of a number over all processes, on the device of the number."""
    if count() == 1:
        return value
    summed = value.float()
    dist.all_reduce(summed)
    return summed


def from_first(value: str) -> str:
    """Return the text that the first process gives."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def agree(value: int, device: torch.device) -> bool:
    """Return whether all processes have the same number."""
    if count() == 1:
        return True
    extremes = torch.tensor([value, -value], device=device)
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return bool(extremes.sum() == 0)


def parallel(network: nn.Module) -> nn.Module:
    """Return ``network`` in a wrapper whose backward pass averages the gradients of all processes."""
    if count() == 1:
        return network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Only the class of the module changes, so the weights and the state_dict stay as they are.
            module.__class__ = SharedBatchNorm2d
    return DistributedDataParallel(network, forward_sync_buffers=False)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Its gradient is the sum of the gradients of all."""

    @staticmethod
    def forward(_: object, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: object, *gradients: Tensor) -> Tensor:
        [gradient] = gradients
        return _Sum.forward(_, gradient)


def _sum(tensor: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the images of all processes. torch's SyncBatchNorm does the same, but only on GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``[N, C, H, W]`` by the mean and variance over N, H and W of all processes."""
        if not self.training:
            return super().forward(input)
        number = torch.tensor(input.numel() / self.num_features, device=input.device)
        dist.all_reduce(number)
        axes = (0, 2, 3)
        mean = _sum(input.sum(axes)) / number
        centred = input - mean[:, None, None]
        variance = _sum(centred.square().sum(axes)) / number
        with torch.no_grad():
            # The running statistics for evaluation, as nn.BatchNorm2d computes them.
            assert self.running_mean is not None and self.running_var is not None  # noqa: S101, PT018
            assert self.num_batches_tracked is not None and self.momentum is not None  # noqa: S101, PT018
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalized: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalized

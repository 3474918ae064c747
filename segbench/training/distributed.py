"""Several processes that train one network, each on a device of its own, as `torchrun` starts them.

Every process draws the same batch and keeps its own samples of it. The outputs of all processes are put together before
the loss, so that each computes the loss of the whole batch, Dice over the batch and masks included, and the sum of
their gradients is the gradient of one process. Axis legend: B batch, C channel, Z Y X space.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from models.blocks.plain_unet import BatchStatisticsNorm
from segbench.core import devices
from segbench.core.errors import InputError, Problem

Result = TypeVar("Result")
LONGEST_WAIT = timedelta(days=30)
"""How long processes wait for each other, such as for one that queues for a device. By default gloo gives up after half
an hour, NCCL after ten minutes. When one process dies, `torchrun` ends the others."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one network; the only one by default.

    rank: number of this process; 0 writes. size: how many there are. group: through which tensors travel.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def joined(cls) -> Ranks:
        """Meet the other processes that `torchrun` started, if it started this one; messages travel by gloo."""
        launched = devices.launched()
        if launched.size == 1:
            return cls()
        distributed.init_process_group("gloo", rank=launched.rank, world_size=launched.size, timeout=LONGEST_WAIT)
        return cls(launched.rank, launched.size, distributed.group.WORLD)

    def with_device(self, kind: str) -> tuple[Ranks, torch.device]:
        """Return the device of this process, and the ranks with NCCL between devices.

        Args:
            kind: 'cpu' or 'cuda'.
        """
        if kind == "cpu" or self.size == 1:
            return self, torch.device(kind)
        own = devices.launched().local_rank if torch.cuda.device_count() > 1 else 0  # a leased device is the only one
        torch.cuda.set_device(own)
        group = distributed.new_group(backend="nccl", timeout=LONGEST_WAIT)
        return Ranks(self.rank, self.size, group), torch.device("cuda", own)

    @contextlib.contextmanager
    def leasing(self) -> Iterator[None]:
        """Let the processes of one job take their devices before those of another job take theirs.

        Two jobs that each held a part of what they need would wait for each other for ever.
        """
        if self.size == 1:
            yield
            return
        with devices.leases_of_one_job() if self.rank == 0 else contextlib.nullcontext():
            distributed.barrier()
            yield
            distributed.barrier()

    def samples(self, batch_size: int) -> range:
        """Return the samples of a batch that are this process's own."""
        own = batch_size // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def whole(self, own: Tensor) -> Tensor:
        """Return the tensor of the whole batch; the gradient flows through this process's own samples."""
        if self.size == 1:
            return own
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(parts, own.detach(), group=self.group)
        parts[self.rank] = own
        return torch.cat(parts)

    def in_parallel(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages the gradients of all processes; the module itself for one."""
        if self.size == 1:
            return module
        return DistributedDataParallel(
            module, process_group=self.group, find_unused_parameters=True, broadcast_buffers=False
        )

    def share_statistics(self, model: nn.Module, device: torch.device) -> None:
        """Let the batch norms of a model be over the samples of all processes; copies of it are made before.

        Raises:
            InputError: the model has batch norms that cannot be shared, see `batch_norm_problem`.
        """
        if self.size == 1:
            return
        if problem := batch_norm_problem(model, self.size, on_gpus=device.type == "cuda"):
            raise InputError([problem])
        nn.SyncBatchNorm.convert_sync_batchnorm(model, self.group)

    def agreed(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process; the same in all of them."""
        if self.size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.uint8)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found]

    def leave(self) -> None:
        """Part from the other processes, when the work is done."""
        if self.size > 1:
            distributed.destroy_process_group()

    def first_then_others(self, work: Callable[[], Result]) -> Result:
        """Do the work in process 0, then in the others, and return the result."""
        if self.size == 1:
            return work()
        if self.rank > 0:
            distributed.barrier()
        found = work()
        if self.rank == 0:
            distributed.barrier()
        return found


ALONE = Ranks()


def batch_norm_problem(model: nn.Module, size: int, *, on_gpus: bool) -> Problem | None:
    """Return why a model is not trained by several processes, None where nothing speaks against it.

    Args:
        model: the network.
        size: how many processes there are.
        on_gpus: whether each has a GPU; there PyTorch shares the statistics of its own batch norms.
    """
    modules = list(model.modules())
    unshared = any(isinstance(module, BatchStatisticsNorm) for module in modules)
    if not unshared and (on_gpus or not any(isinstance(module, _BatchNorm) for module in modules)):
        return None
    return Problem(
        "torchrun",
        f"{size} processes",
        "one process for a network with batch norm, whose statistics are those of the whole batch",
        "train it with one process" if unshared else "train it with one process, or on GPUs",
    )

"""A group: the processes that train one network together, data-parallel.

Each process takes its part of every batch of the same views, in the same order, with the same learning rates.
Gradients are averaged over the whole batch, and batch norm uses the statistics of the whole batch. The result
equals that of a single process up to the order of sums (except for networks that draw random numbers, such as
those with dropout).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from raydc.errors import InputError
from raydc.spec import catalog
from raydc.spec.evaluation import Recipe

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The rank of a process and the number of processes that train together."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> Group:
        """The group that torch.distributed was set up with."""
        return Group(distributed.get_rank(), distributed.get_world_size())

    @staticmethod
    def here() -> Group:
        """The group that this process trains in: it alone, unless torch.distributed was set up."""
        together = distributed.is_available() and distributed.is_initialized()
        return Group.current() if together else ALONE

    @property
    def leads(self) -> bool:
        """Whether this process measures and saves for the group."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """The part of a batch of `count` images for this process; not empty if `count` is at least `size`."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def agreed(self, value: T) -> T:
        """The value of the leader; all processes must call this."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a tensor over the processes, computed in place; all processes must call this."""
        if self.size > 1:
            distributed.all_reduce(values)
            values /= self.size
        return values

    def joined(self, network: nn.Module) -> nn.Module:
        """The module to call for a forward pass in training; it shares its weights with `network`.

        Its backward pass averages the gradients over all processes.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, broadcast_buffers=False)


ALONE = Group()


def synchronised(network: nn.Module) -> nn.Module:
    """`network` with batch norm over the whole batch of a group; names of weights do not change."""
    whole: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return whole


def check_together(recipe: Recipe, network: nn.Module, images: int, workers: int, gpus: bool) -> None:
    """Raise `InputError` if `workers` processes cannot train `network` like a single process."""
    where = f"resources.teacher_workers is {workers}, but"
    if mixes := [name for name in recipe.augment if catalog.AUGMENTATIONS[name].mixes]:
        raise InputError(
            f"{where} {mixes[0]} mixes images of different workers; set it to 1, or remove {mixes[0]}"
        )
    last = images % min(recipe.batch_size, images) or min(recipe.batch_size, images)
    if last < workers:
        raise InputError(
            f"{where} with a batch_size of {recipe.batch_size} the last batch of {images} images has {last}; "
            "set it to 1, or choose another batch_size"
        )
    if not gpus and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        raise InputError(
            f"{where} PyTorch has batch norm over several workers on GPUs only; set it to 1, or choose a "
            "network without batch norm"
        )

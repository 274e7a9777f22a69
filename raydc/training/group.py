"""A group: the processes that train one network together, data-parallel.

Each takes its part of every batch of the same views, in the same order, at the same rates; gradients are
averaged over the whole batch, and statistics of batch norm are those of the whole batch. So a training
together equals the training alone up to the order of its sums (but for networks that draw random numbers
of their own, such as dropout).
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
    """One process's place among those that train together."""

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
        """Whether this process measures and saves for all."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """Which of a batch's `count` images this process takes; at least one of `size` or more."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def agreed(self, value: T) -> T:
        """What the leader says; all must ask."""
        if self.size == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said)
        return said[0]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that each has, changed in place; all must ask."""
        if self.size > 1:
            distributed.all_reduce(values)
            values /= self.size
        return values

    def joined(self, network: nn.Module) -> nn.Module:
        """What to call for a forward pass in training; it shares its weights with `network`.

        Its backward pass averages the gradients of all processes.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, broadcast_buffers=False)


ALONE = Group()


def synchronised(network: nn.Module) -> nn.Module:
    """`network` with batch norm over the whole batch of a group; names of weights stay."""
    whole: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return whole


def check_together(recipe: Recipe, network: nn.Module, images: int, workers: int, gpus: bool) -> None:
    """Raise `InputError` if `workers` processes cannot train `network` on `images` images as one would."""
    where = f"resources.teacher_workers is {workers}, but"
    if mixes := [name for name in recipe.augment if catalog.AUGMENTATIONS[name].mixes]:
        raise InputError(f"{where} {mixes[0]} mixes images of different workers; set it to 1, or take it out")
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

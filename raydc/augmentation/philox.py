"""Philox4x32-10 (Salmon et al., SC 2011): random numbers as a pure function of a key and a counter.

All arithmetic uses 64-bit integers, so every device computes the same bits. There is no state, so a view is
identified by (seed, epoch, batch) and can be computed again on any machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_ROUNDS = 10


def words(
    key: int | Tensor, counter: tuple[int | Tensor, int | Tensor, int | Tensor, int | Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random 32-bit words (int64 tensors in [0, 2**32)) for each broadcast key and counter.

    key: below 2**64 as an int, or an int64 tensor of its bits; counter: four values below 2**32.
    """
    # Python ints stay Python ints, so that they are not copied to the device.
    c0, c1, c2, c3 = counter
    k0, k1 = key & _LOW, (key >> 32) & _LOW
    for round_ in range(_ROUNDS):
        if round_:
            k0 = (k0 + _WEYL[0]) & _LOW
            k1 = (k1 + _WEYL[1]) & _LOW
        # The products wrap around in 64 bits; both 32-bit halves stay exact.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _LOW) ^ c1 ^ k0,
            p1 & _LOW,
            ((p0 >> 32) & _LOW) ^ c3 ^ k1,
            p0 & _LOW,
        )
    return torch.as_tensor(c0), torch.as_tensor(c1), torch.as_tensor(c2), torch.as_tensor(c3)


def uniforms(key: int | Tensor, stream: int, epoch: Tensor, batch: Tensor, slots: int) -> Tensor:
    """Uniform numbers in [0, 1): [..., slots, 4] float32, with 24 bits each.

    epoch, batch: int64 tensors of equal shape [...]; a slot is a position in the batch.
    """
    slot = torch.arange(slots, device=epoch.device)
    drawn = words(key, (slot, stream, batch.unsqueeze(-1), epoch.unsqueeze(-1)))
    return torch.stack([(word >> 8).float() * 2.0**-24 for word in drawn], dim=-1)


def permutations(key: int | Tensor, stream: int, epoch: Tensor, batch: Tensor, size: int) -> Tensor:
    """Random orders of 0..size-1: [..., size] int64; epoch, batch: int64 [...]."""
    slot = torch.arange(size, device=epoch.device)
    high, low, _, _ = words(key, (slot, stream, batch.unsqueeze(-1), epoch.unsqueeze(-1)))
    return ((high << 31) | (low >> 1)).argsort(dim=-1, stable=True)

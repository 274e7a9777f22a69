"""Networks by name: build them, initialise them from a seed, compute penultimate features.

All networks, including those of plugins, are in the catalogue (raydc.spec.catalog.NETWORKS).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydc.errors import InputError
from raydc.spec import catalog
from raydc.spec.seeding import seed_of


def build(arch: str, channels: int, classes: int, resolution: int) -> nn.Module:
    """The network `arch` for images [N, channels, resolution, resolution]; raises `InputError` if unknown.

    Its weights come from torch's global generator; use `initialised` for reproducible ones.
    """
    entry, chosen = catalog.NETWORKS.of(arch)
    network: nn.Module = entry.load()(channels, classes, resolution, **chosen)
    return network


def initialised(
    arch: str, channels: int, classes: int, resolution: int, role: str, replicate: int
) -> nn.Module:
    """`build` with weights that depend only on (role, replicate, arch and its shape)."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which also seeds every GPU.
        torch.default_generator.manual_seed(seed_of("weights", role, replicate, arch))
        return build(arch, channels, classes, resolution)


def check(arch: str, channels: int, classes: int, resolution: int) -> None:
    """Raise `InputError` if `arch` does not exist or does not accept such images."""
    if catalog.NETWORKS.of(arch)[0].name == "convnet":
        return  # its depth is checked with the study
    shape = (2, channels, resolution, resolution)
    # Networks of plugins may use operations that the meta device does not support, so they run on the CPU.
    device = "meta" if catalog.NETWORKS.code(catalog.NETWORKS.of(arch)[0].name) is None else "cpu"
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
            network = build(arch, channels, classes, resolution)
            if not isinstance(network, nn.Module):
                raise TypeError(f"its function returned {type(network).__name__}, not an nn.Module")
            logits = network.eval()(torch.zeros(shape))
    except InputError:
        raise
    except Exception as error:  # the code of a network or of a library may raise any error
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        raise InputError(
            f"the network {arch} does not accept {channels} x {resolution} x {resolution} images ({reason}); "
            "set dataset.resolution or choose another"
        ) from None
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        raise InputError(f"the network {arch} does not output {classes} logits; choose another")


def classifier_of(network: nn.Module) -> nn.Linear:
    """The last linear layer, whose input is the penultimate representation."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert linear, "a network without a linear layer has no penultimate features"
    return linear[-1]


def draws_at_random(network: nn.Module) -> bool:
    """Whether a training pass draws random numbers (dropout, stochastic depth)."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return True
        if type(module).__name__ in ("StochasticDepth", "DropPath"):
            return True
    return False


def forward_with_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(logits [N, classes], penultimate features [N, D])."""
    caught: list[Tensor] = []
    handle = classifier_of(network).register_forward_pre_hook(
        lambda _module, inputs: caught.append(inputs[0])
    )
    try:
        logits = network(images)
    finally:
        handle.remove()
    return logits, caught[-1].flatten(1)

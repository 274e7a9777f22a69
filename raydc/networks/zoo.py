"""Networks by name: build one, initialise it from a seed, find its penultimate features.

convnet-dD-wW and convnet-dD-wW-bn are the papers' ConvNets, resnet18-small is ResNet-18 with a 3x3
stem and no max-pooling, timm/NAME and torchvision/NAME are theirs, without published weights. Networks of
timm whose input has a fixed size (Swin, ViT) are built for the size of the images.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from raydc.errors import InputError, did_you_mean
from raydc.networks.convnet import ConvNet
from raydc.spec.seeding import seed_of


def build(arch: str, channels: int, classes: int, resolution: int) -> nn.Module:
    """The network `arch` for images [N, channels, resolution, resolution]; `InputError` if unknown.

    Its weights come from torch's global generator; use `initialised` for reproducible ones.
    """
    if match := re.fullmatch(r"convnet-d(\d+)-w(\d+)(-bn)?", arch):
        return ConvNet(channels, classes, resolution, int(match[1]), int(match[2]), match[3] is not None)
    if arch == "resnet18-small":
        return _resnet18_small(channels, classes)
    library, _, name = arch.partition("/")
    if library == "timm":
        return _timm(name, channels, classes, resolution)
    assert library == "torchvision", arch
    return _torchvision(name, channels, classes)


def initialised(
    arch: str, channels: int, classes: int, resolution: int, role: str, replicate: int
) -> nn.Module:
    """`build` with weights that are a function of (role, replicate, arch and its shape)."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which also seeds every GPU.
        torch.default_generator.manual_seed(seed_of("weights", role, replicate, arch))
        return build(arch, channels, classes, resolution)


def check(arch: str, channels: int, classes: int, resolution: int) -> None:
    """Raise `InputError` if `arch` does not exist or cannot take such images."""
    if arch.startswith("convnet-"):
        return  # its depth is checked with the study
    try:
        with torch.device("meta"):
            network = build(arch, channels, classes, resolution).eval()
            logits = network(torch.empty(2, channels, resolution, resolution))
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"the network {arch} cannot take {channels} x {resolution} x {resolution} images ({reason}); "
            "set dataset.resolution or choose another"
        ) from None
    if logits.shape != (2, classes):
        raise InputError(f"the network {arch} does not end in {classes} logits; choose another")


def classifier_of(network: nn.Module) -> nn.Linear:
    """The last linear layer, whose input is the penultimate representation."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert linear, "a network without a linear layer has no penultimate features"
    return linear[-1]


def draws_at_random(network: nn.Module) -> bool:
    """Whether a training pass draws random numbers of its own (dropout, stochastic depth)."""
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


def _resnet18_small(channels: int, classes: int) -> nn.Module:
    from torchvision.models import resnet18

    network: nn.Module = resnet18(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def _timm(name: str, channels: int, classes: int, resolution: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise InputError(
            f"there is no network timm/{name}{did_you_mean(name, timm.list_models())}; timm.list_models() "
            "names them all"
        )
    config = timm.models.get_pretrained_cfg(name)
    # Transformers of one input size (Swin, ViT) are built for the size of these images.
    fixed = config is not None and config.fixed_input_size and config.input_size[-1] != resolution
    size = {"img_size": resolution} if fixed else {}
    network: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=classes, in_chans=channels, **size
    )
    return network


def _torchvision(name: str, channels: int, classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"there is no network torchvision/{name}{did_you_mean(name, known)}")
    if channels != 3:
        raise InputError(
            f"torchvision/{name} takes images of 3 channels, but these have {channels}; choose a timm "
            "network or a convnet"
        )
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network

"""Networks of timm and torchvision, without published weights."""

from __future__ import annotations

from torch import nn

from raydc.errors import InputError, did_you_mean


def timm(channels: int, classes: int, resolution: int, *, name: str) -> nn.Module:
    """timm/NAME; a transformer with a fixed input size (Swin, ViT) is built for the given resolution."""
    import timm as library

    if not library.is_model(name):
        raise InputError(
            f"there is no network timm/{name}{did_you_mean(name, library.list_models())}; timm.list_models() "
            "lists all"
        )
    config = library.models.get_pretrained_cfg(name)
    fixed = config is not None and config.fixed_input_size and config.input_size[-1] != resolution
    size = {"img_size": resolution} if fixed else {}
    network: nn.Module = library.create_model(
        name, pretrained=False, num_classes=classes, in_chans=channels, **size
    )
    return network


def torchvision(channels: int, classes: int, resolution: int, *, name: str) -> nn.Module:
    """torchvision/NAME, for images of three channels."""
    from torchvision import models

    del resolution
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"there is no network torchvision/{name}{did_you_mean(name, known)}")
    if channels != 3:
        raise InputError(
            f"torchvision/{name} takes images with 3 channels, but these have {channels}; choose a timm "
            "network or a convnet"
        )
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network

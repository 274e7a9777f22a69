"""Residual networks for small images."""

from __future__ import annotations

from torch import nn


def resnet18_small(channels: int, classes: int, resolution: int) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no max-pooling."""
    from torchvision.models import resnet18

    del resolution
    network: nn.Module = resnet18(weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network

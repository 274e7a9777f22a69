"""The ConvNet of dataset distillation (arXiv 2006.05929; no-distillation: softlabel/networks.py).

D blocks of conv 3x3 (width W, bias), normalisation, ReLU and 2x2 average pooling, then one linear
layer. Instance normalisation is an affine GroupNorm with one group per channel.
"""

from __future__ import annotations

from torch import Tensor, nn


def convnet(channels: int, classes: int, resolution: int, *, depth: str, width: str, norm: str) -> ConvNet:
    """convnet-dDEPTH-wWIDTH, optionally with -bn."""
    return ConvNet(channels, classes, resolution, int(depth), int(width), norm == "-bn")


class ConvNet(nn.Module):
    """convnet-dD-wW: [N, channels, S, S] -> logits [N, classes]; S is at least 2**depth."""

    def __init__(
        self,
        channels: int,
        classes: int,
        resolution: int,
        depth: int,
        width: int,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = channels
        for _ in range(depth):
            blocks += [
                nn.Conv2d(inputs, width, kernel_size=3, padding=1),
                nn.BatchNorm2d(width) if batch_norm else nn.GroupNorm(width, width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
            inputs = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * (resolution >> depth) ** 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits

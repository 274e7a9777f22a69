"""Networks by name."""

from __future__ import annotations

import pytest
import torch

from raydc.errors import InputError
from raydc.networks.zoo import build, check, forward_with_features, initialised


@pytest.mark.parametrize(
    ("arch", "classes", "parameters"),
    [
        ("convnet-d3-w128", 10, 320_010),
        ("convnet-d3-w128", 100, 504_420),
        ("resnet18-small", 100, 11_220_132),
    ],
)
def test_sizes_are_the_papers(arch: str, classes: int, parameters: int) -> None:
    assert sum(p.numel() for p in build(arch, 3, classes, 32).parameters()) == parameters


@pytest.mark.parametrize("arch", ["convnet-d2-w8", "convnet-d2-w8-bn", "resnet18-small", "timm/resnet10t"])
def test_networks_give_logits_and_features(arch: str) -> None:
    network = build(arch, 1, 7, 16).eval()
    logits, features = forward_with_features(network, torch.randn(3, 1, 16, 16))
    assert logits.shape == (3, 7)
    assert features.ndim == 2


def test_weights_are_a_function_of_role_and_replicate() -> None:
    def weight(role: str, replicate: int) -> torch.Tensor:
        torch.rand(1)  # the global generator does not matter
        return next(initialised("convnet-d1-w4", 1, 2, 8, role, replicate).parameters()).detach()

    assert torch.equal(weight("student", 0), weight("student", 0))
    assert not torch.equal(weight("student", 0), weight("student", 1))
    assert not torch.equal(weight("student", 0), weight("teacher", 0))


@pytest.mark.parametrize(
    "arch",
    [
        "resnet18-small",
        "torchvision/resnet50",
        "torchvision/resnet101",
        "torchvision/swin_t",
        "timm/mobilenetv2_100",
        "timm/efficientnet_b0",
        "timm/swin_tiny_patch4_window7_224",
        "timm/vit_tiny_patch16_224",
    ],
)
@pytest.mark.parametrize("resolution", [32, 64])
def test_the_papers_architectures_take_small_images(arch: str, resolution: int) -> None:
    check(arch, 3, 10, resolution)


def test_a_network_of_a_fixed_size_is_built_for_the_images() -> None:
    network = build("timm/vit_tiny_patch16_224", 3, 5, 32)
    assert network.pos_embed.shape[1] == 1 + 2 * 2
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    assert build("timm/vit_tiny_patch16_224", 3, 5, 224).pos_embed.shape[1] == 1 + 14 * 14


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("timm/resnt18", "did you mean resnet18?"),
        ("torchvision/resnet19", "there is no network torchvision/resnet19"),
        ("torchvision/vit_b_16", "set dataset.resolution or choose another"),
        ("torchvision/alexnet", "does not accept 3 x 32 x 32 images"),
        ("timm/inception_v4", "set dataset.resolution or choose another"),
    ],
)
def test_networks_that_cannot_be_are_refused(arch: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        check(arch, 3, 10, 32)
    check("torchvision/mobilenet_v2", 3, 10, 32)

"""Forward passes of stacked networks, by several kernels.

Parameters are stacked [S, ...]. All kernels compute the same:

| kernel           | forward of S students                                             | networks |
| ---------------- | ----------------------------------------------------------------- | -------- |
| grouped          | convolutions with S groups on [B, S C, H, W], batched linear layer | ConvNets |
| unfold           | patches [S, B H W, 9 C] times kernels [S, 9 C, W], channels last   | ConvNets |
| compiled-grouped | grouped, with fused operations between the convolutions            | ConvNets |
| compiled-unfold  | unfold, with fused operations between the matrix products          | ConvNets |
| vmap             | torch.func.vmap of the network over its stacked parameters        | any without dropout |

The fastest kernel for a shape is measured when the shape is first used (raydc.training.kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydc.networks.convnet import ConvNet
from raydc.networks.zoo import draws_at_random
from raydc.training.compiling import compiler
from raydc.training.engine import MOST_SHAPES
from raydc.training.losses import full_precision

State = dict[str, Tensor]
"""Weights and buffers by name: of one network [...], or of a stack [S, ...]."""
Forward = Callable[[State, State, Tensor], Tensor]
"""(parameters, buffers, images [S, B, C, H, W]) -> logits [S, B, classes]; buffers change in place."""


def kernels_for(network: nn.Module) -> tuple[str, ...]:
    """Kernels that can run `network`; empty if it draws random numbers."""
    if isinstance(network, ConvNet):
        compiled = ("compiled-grouped", "compiled-unfold") if compiler() else ()
        return ("grouped", "unfold", "vmap", *compiled)
    return () if draws_at_random(network) else ("vmap",)


def forward_of(kernel: str, network: nn.Module) -> Forward:
    """The forward pass of a stack of `network`s, in training mode, by one of `kernels_for`."""
    if kernel == "vmap":
        return _vmapped(network)
    assert isinstance(network, ConvNet), kernel
    forward: Forward
    if kernel.endswith("grouped"):
        forward = partial(_grouped, network)
    else:
        forward = partial(_unfolded, network, _shifted if is_compiled(kernel) else _windows)
    if not is_compiled(kernel):
        return forward
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    compiled: Forward = torch.compile(forward, dynamic=False)
    return compiled


def is_compiled(kernel: str) -> bool:
    """Whether a kernel is compiled, separately for each shape."""
    return kernel.startswith("compiled")


def _vmapped(network: nn.Module) -> Forward:
    network.train()

    def one(parameters: State, buffers: State, images: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(network, (parameters, buffers), (images,))
        return logits

    stacked: Forward = torch.func.vmap(one)
    return stacked


def _blocks(network: ConvNet) -> Iterator[tuple[str, str, nn.Module]]:
    """(name of the convolution, name of its normalisation, the normalisation) of each block."""
    layers = list(network.features)
    for i in range(0, len(layers), 4):
        yield f"features.{i}", f"features.{i + 1}", layers[i + 1]


def _grouped(network: ConvNet, parameters: State, buffers: State, images: Tensor) -> Tensor:
    students, batch = images.shape[:2]
    hidden = images.transpose(0, 1).flatten(1, 2)
    for convolution, norm, layer in _blocks(network):
        weight, bias = parameters[f"{convolution}.weight"], parameters[f"{convolution}.bias"]
        hidden = F.conv2d(hidden, weight.flatten(0, 1), bias.flatten(), padding=1, groups=students)
        scale, shift = parameters[f"{norm}.weight"].flatten(), parameters[f"{norm}.bias"].flatten()
        if isinstance(layer, nn.BatchNorm2d):
            mean, variance = (buffers[f"{norm}.{name}"].view(-1) for name in ("running_mean", "running_var"))
            buffers[f"{norm}.num_batches_tracked"] += 1
            assert layer.momentum is not None
            hidden = F.batch_norm(
                hidden, mean, variance, scale, shift, training=True, momentum=layer.momentum
            )
        else:
            hidden = F.group_norm(hidden, hidden.shape[1], scale, shift)
        hidden = F.avg_pool2d(F.relu(hidden), 2)
    flat = hidden.view(batch, students, -1).transpose(0, 1)
    return _linear(parameters, flat)


def _windows(padded: Tensor) -> Tensor:
    """Windows [S, B, H, W, 3, 3, C] of images [S, B, H + 2, W + 2, C]."""
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 1, 2, 3, 5, 6, 4)


def _shifted(padded: Tensor) -> Tensor:
    """Like `_windows`, from shifted copies, since the gradient of compiled `unfold` uses atomic adds."""
    height, width = padded.shape[2] - 2, padded.shape[3] - 2
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack(shifted, 4).unflatten(4, (3, 3))


def _unfolded(
    network: ConvNet,
    windows: Callable[[Tensor], Tensor],
    parameters: State,
    buffers: State,
    images: Tensor,
) -> Tensor:
    students, batch = images.shape[:2]
    hidden = images.permute(0, 1, 3, 4, 2)  # [S, B, H, W, C]
    for convolution, norm, layer in _blocks(network):
        weight, bias = parameters[f"{convolution}.weight"], parameters[f"{convolution}.bias"]
        height, width = hidden.shape[2:4]
        if torch.is_autocast_enabled(hidden.device.type):
            # Cast before making the patches, which are nine times as large.
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        patches = windows(F.pad(hidden, (0, 0, 1, 1, 1, 1)))
        kernels = weight.permute(0, 3, 4, 2, 1).flatten(1, 3)  # [S, 9 C, W]
        product = torch.bmm(patches.reshape(students, batch * height * width, -1), kernels) + bias[:, None]
        # Normalise in full precision, like a single network under autocast.
        hidden = full_precision(product).view(students, batch, height * width, -1)
        over = (1, 2) if isinstance(layer, nn.BatchNorm2d) else (2,)
        variance, mean = torch.var_mean(hidden, over, correction=0, keepdim=True)
        if isinstance(layer, nn.BatchNorm2d):
            _track(layer, norm, buffers, mean, variance, batch * height * width)
        assert isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)
        hidden = (hidden - mean) * torch.rsqrt(variance + layer.eps)
        scale, shift = parameters[f"{norm}.weight"], parameters[f"{norm}.bias"]
        hidden = torch.relu(hidden * scale[:, None, None] + shift[:, None, None])
        even = hidden.view(students, batch, height, width, -1)[:, :, : height // 2 * 2, : width // 2 * 2]
        hidden = even.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    flat = hidden.permute(0, 1, 4, 2, 3).flatten(2)
    return _linear(parameters, flat)


def _track(
    layer: nn.BatchNorm2d, norm: str, buffers: State, mean: Tensor, variance: Tensor, count: int
) -> None:
    """Update running statistics like BatchNorm, with the unbiased variance."""
    assert layer.momentum is not None
    with torch.no_grad():
        buffers[f"{norm}.running_mean"].lerp_(mean.detach().flatten(1), layer.momentum)
        unbiased = variance.detach().flatten(1) * (count / (count - 1))
        buffers[f"{norm}.running_var"].lerp_(unbiased, layer.momentum)
        buffers[f"{norm}.num_batches_tracked"] += 1


def _linear(parameters: State, features: Tensor) -> Tensor:
    """[S, B, D] -> logits [S, B, classes]."""
    return torch.baddbmm(parameters["classifier.bias"][:, None], features, parameters["classifier.weight"].mT)

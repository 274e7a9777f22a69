"""A plain training loop in the style of research code, as a baseline.

One student, a DataLoader over tensors, per-batch differentiable augmentation with parameters from
torch.rand, a loss that is read every step, a test pass through a DataLoader. It reimplements the released
scripts of dataset distillation (VICO-UoE/DatasetCondensation, sunnytqin/no-distillation).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 256
TESTS = 3
"""Number of timed test passes; the median counts."""


def augment(images: Tensor) -> Tensor:
    """One of six operations for the whole batch, with random parameters for each image."""
    operation = ("color", "crop", "cutout", "flip", "scale", "rotate")[np.random.randint(6)]
    count, _, height, width = images.shape
    device = images.device
    if operation == "color":
        images = images + (torch.rand(count, 1, 1, 1, device=device) - 0.5)
        grey = images.mean(dim=1, keepdim=True)
        images = (images - grey) * (torch.rand(count, 1, 1, 1, device=device) * 2) + grey
        mean = images.mean(dim=[1, 2, 3], keepdim=True)
        return (images - mean) * (torch.rand(count, 1, 1, 1, device=device) + 0.5) + mean
    if operation == "flip":
        return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, images.flip(3), images)
    if operation == "crop":
        shift = int(height * 0.125 + 0.5)
        down = torch.randint(-shift, shift + 1, [count, 1, 1], device=device)
        right = torch.randint(-shift, shift + 1, [count, 1, 1], device=device)
        batch, rows, columns = torch.meshgrid(
            torch.arange(count, device=device),
            torch.arange(height, device=device),
            torch.arange(width, device=device),
            indexing="ij",
        )
        rows = torch.clamp(rows + down + 1, 0, height + 1)
        columns = torch.clamp(columns + right + 1, 0, width + 1)
        padded = F.pad(images, [1, 1, 1, 1])
        return padded.permute(0, 2, 3, 1).contiguous()[batch, rows, columns].permute(0, 3, 1, 2)
    if operation == "cutout":
        size = int(height * 0.5 + 0.5)
        top = torch.randint(0, height + (1 - size % 2), [count, 1, 1], device=device)
        left = torch.randint(0, width + (1 - size % 2), [count, 1, 1], device=device)
        batch, rows, columns = torch.meshgrid(
            torch.arange(count, device=device),
            torch.arange(size, device=device),
            torch.arange(size, device=device),
            indexing="ij",
        )
        rows = torch.clamp(rows + top - size // 2, 0, height - 1)
        columns = torch.clamp(columns + left - size // 2, 0, width - 1)
        mask = torch.ones(count, height, width, device=device)
        mask[batch, rows, columns] = 0
        return images * mask.unsqueeze(1)
    if operation == "scale":
        sx = torch.rand(count) * (1.2 - 1 / 1.2) + 1 / 1.2
        sy = torch.rand(count) * (1.2 - 1 / 1.2) + 1 / 1.2
        theta = [[[sx[i], 0, 0], [0, sy[i], 0]] for i in range(count)]
    else:
        angle = (torch.rand(count) - 0.5) * 2 * 15 / 180 * math.pi
        theta = [[[torch.cos(a), torch.sin(-a), 0], [torch.sin(a), torch.cos(a), 0]] for a in angle]
    grid = F.affine_grid(
        torch.tensor(theta, dtype=torch.float, device=device), list(images.shape), align_corners=True
    )
    return F.grid_sample(images, grid, align_corners=True)


@dataclass
class Trained:
    """Result and times of the loop."""

    step_seconds: float
    test_seconds: float
    test_acc: float


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    test: tuple[Tensor, Tensor],
    steps: int,
    *,
    lr: float = 0.01,
    bf16: bool = False,
) -> Trained:
    """Train `network` on images [N, C, H, W] and label distributions [N, K]; test it once at the end."""
    device = images.device
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True, num_workers=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    epochs = -(-steps // len(loader))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, epochs // 4), gamma=0.3)
    network.train()
    done, began, right, loss_sum = 0, 0.0, 0, 0.0
    for _ in range(epochs):
        for batch, target in loader:
            if done == 1:
                began = _now(device)
            batch = augment(batch.float().to(device))
            target = target.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = network(batch)
            loss = -(target * F.log_softmax(output.float(), dim=1)).sum(1).mean()
            loss_sum += loss.item() * len(batch)
            predicted = np.argmax(output.float().cpu().data.numpy(), axis=-1)
            right += int((predicted == np.argmax(target.cpu().data.numpy(), axis=-1)).sum())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
        scheduler.step()
    step_seconds = (_now(device) - began) / (steps - 1)
    seconds = []
    for _ in range(TESTS):
        start = _now(device)
        accuracy = evaluate(network, *test, bf16=bf16)
        seconds.append(_now(device) - start)
    return Trained(step_seconds, sorted(seconds)[TESTS // 2], accuracy)


def evaluate(network: nn.Module, images: Tensor, labels: Tensor, *, bf16: bool) -> float:
    """Test accuracy, computed batch by batch with a DataLoader."""
    network.eval()
    right = 0
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        for batch, target in DataLoader(TensorDataset(images, labels), batch_size=BATCH):
            output = network(batch)
            right += int((np.argmax(output.float().cpu().numpy(), axis=-1) == target.cpu().numpy()).sum())
    return right / len(labels)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()

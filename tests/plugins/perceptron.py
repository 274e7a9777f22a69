"""A network: one hidden layer."""

from torch import nn

from raydc.spec.catalog import NETWORKS, Network


def perceptron(channels: int, classes: int, resolution: int) -> nn.Module:
    inputs = channels * resolution**2
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes))


NETWORKS.add(Network("perceptron", perceptron, "one hidden layer of 32"))

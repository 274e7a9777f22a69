"""A loss: the Huber distance of the student's probabilities to the labels'."""

import torch.nn.functional as F
from torch import Tensor

from raydc.spec.catalog import LOSSES, Loss
from raydc.training.losses import Targets


def huber(student: Tensor, targets: Targets) -> Tensor:
    return F.huber_loss(student.softmax(1), targets.probabilities)


LOSSES.add(Loss("huber", huber, "Huber distance of probabilities"))

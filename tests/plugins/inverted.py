"""An augmentation: inverts the images of a batch, each with probability `train.inverted_share`."""

import torch
from torch import Tensor

from raydc.spec.catalog import AUGMENTATIONS, Augmentation
from raydc.spec.keys import Key, Real

SHARE = Key("train.inverted_share", Real(low=0, high=1), "part of the images that is inverted", 1.0)


def invert(images: Tensor, u: Tensor, inverted_share: float) -> Tensor:
    return torch.where(u[:, 0].view(-1, 1, 1, 1) < inverted_share, -images, images)


AUGMENTATIONS.add(Augmentation("inverted", invert, "the negative of an image", keys=(SHARE,)))

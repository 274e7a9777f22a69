"""The augmentations, losses, schedules, optimizers, networks and codecs that are part of raydc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raydc.spec.keys import Flag, Key, Many, Real, Value
from raydc.spec.registry import Registry
from raydc.spec.training_entries import Augmentation, Codec, Loss, Network, Networks, Optimizer, Schedule


@dataclass(frozen=True)
class CropScale:
    """[smallest, largest] fraction of the image's area."""

    def cast(self, given: Value) -> tuple[float, float]:
        low, high = Many(Real(above=0, high=1), 2, 2).cast(given)
        if low > high:
            raise ValueError("the first is larger than the second")
        return low, high

    def describe(self) -> str:
        return "a list of two numbers, smallest and largest area, above 0 and at most 1"


CROP_SCALE = Key(
    "train.crop_scale",
    CropScale(),
    "smallest and largest area of a random resized crop, as fractions of the image",
    (0.08, 1.0),
)
MIXUP_ALPHA = Key(
    "train.mixup_alpha", Real(above=0), "alpha of the Beta(alpha, alpha) that mixup draws from", 0.8
)
CUTMIX_ALPHA = Key(
    "train.cutmix_alpha", Real(above=0), "alpha of the Beta(alpha, alpha) that CutMix draws from", 1.0
)
OPERATIONS = "raydc.augmentation.operations"

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
for _augmentation in (
    # In the order in which they are applied.
    Augmentation(
        "dsa",
        f"{OPERATIONS}:dsa",
        "one of six operations per batch, with random parameters per image (arXiv 2102.08259, mode S)",
        needs=("strength",),
        choices=("colour", "crop", "cutout", "flip", "scale", "rotate"),
    ),
    Augmentation(
        "patch_shuffle",
        f"{OPERATIONS}:patch_shuffle",
        "the image's rows and columns of tiles in a random order (RDED, arXiv 2312.03526)",
        streams=("patch rows", "patch columns"),
        needs=("grid",),
    ),
    Augmentation(
        "crop",
        f"{OPERATIONS}:crop",
        "zero-padded by an eighth and shifted back at random",
        needs=("strength",),
    ),
    Augmentation(
        "rrc",
        f"{OPERATIONS}:rrc",
        "random resized crop, area `crop_scale`, aspect 3/4 to 4/3",
        keys=(CROP_SCALE,),
    ),
    Augmentation(
        "tile_crop",
        f"{OPERATIONS}:tile_crop",
        "random resized crop inside one tile of the image (PCA, arXiv 2502.06434)",
        keys=(CROP_SCALE,),
        streams=("tile", "tile choice"),
        needs=("grid",),
    ),
    Augmentation("flip", f"{OPERATIONS}:flip", "mirrored left to right with probability one half"),
    Augmentation(
        "cutout", f"{OPERATIONS}:cutout", "a square of half the side set to zero", needs=("strength",)
    ),
    Augmentation(
        "mixup",
        f"{OPERATIONS}:mixup",
        "each image blended with another of the batch (arXiv 1710.09412)",
        keys=(MIXUP_ALPHA,),
        alpha=MIXUP_ALPHA.name,
    ),
    Augmentation(
        "cutmix",
        f"{OPERATIONS}:cutmix",
        "a box of each image replaced from another of the batch (arXiv 1905.04899)",
        keys=(CUTMIX_ALPHA,),
        alpha=CUTMIX_ALPHA.name,
    ),
):
    AUGMENTATIONS.add(_augmentation)

LOSSES: Registry[Loss] = Registry("loss")
for _loss in (
    Loss(
        "ce",
        "raydc.training.losses:cross_entropy",
        "cross-entropy with hard labels",
        stacked="raydc.training.losses:stacked_cross_entropy",
        soft=False,
    ),
    Loss(
        "soft_ce",
        "raydc.training.losses:cross_entropy",
        "cross-entropy with soft labels; the student at T = 1 (arXiv 2406.10485)",
        stacked="raydc.training.losses:stacked_cross_entropy",
    ),
    Loss(
        "kl",
        "raydc.training.losses:kl",
        "KL divergence, both at T, without T^2 (FKD, RDED, arXiv 2502.06434)",
        stacked="raydc.training.losses:stacked_kl",
    ),
    Loss(
        "kl_t2",
        "raydc.training.losses:kl_t2",
        "KL divergence, both at T, times T^2 (Hinton et al. 2015)",
        stacked="raydc.training.losses:stacked_kl_t2",
    ),
    Loss(
        "mse_ce",
        "raydc.training.losses:mse_ce",
        "squared distance to the teacher's logits + 0.1 cross-entropy (G-VBSM, arXiv 2311.17950)",
        stacked="raydc.training.losses:stacked_mse_ce",
        needs=("logits", "classes"),
    ),
):
    LOSSES.add(_loss)

_SCHEDULES: Mapping[str, str] = {
    "constant": "the peak rate throughout",
    "cosine": "a half cosine to 0",
    "half-cosine": "a quarter cosine to one half (RDED)",
    "quarters": "x 0.3 after each quarter (arXiv 2406.10485)",
    "halfway": "x 0.1 after half of the steps (MTT, DM)",
    "thirds": "x 0.1 after each third",
}
SCHEDULES: Registry[Schedule] = Registry("schedule")
for _name, _summary in _SCHEDULES.items():
    SCHEDULES.add(
        Schedule(
            _name,
            f"raydc.training.schedules:{_name.replace('-', '_')}",
            _summary,
            needs_length=_name != "constant",
        )
    )

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
for _optimizer in (
    Optimizer(
        "sgd",
        "raydc.training.optimizer:sgd",
        "stochastic gradient descent with momentum",
        keys=(
            Key("train.momentum", Real(low=0, below=1), "momentum", 0.9),
            Key("train.nesterov", Flag(), "whether the momentum is Nesterov's", False, inert=True),
        ),
        stacked="raydc.training.stacked:StackedSGD",
    ),
    Optimizer(
        "adam",
        "raydc.training.optimizer:adam",
        "Adam, with weight decay in the gradient",
        stacked="raydc.training.stacked:StackedAdam",
    ),
    Optimizer(
        "adamw",
        "raydc.training.optimizer:adamw",
        "AdamW; decays matrices and kernels only",
        stacked="raydc.training.stacked:StackedAdamW",
    ),
):
    OPTIMIZERS.add(_optimizer)

NETWORKS = Networks("network")
for _network in (
    Network(
        "convnet",
        "raydc.networks.convnet:convnet",
        "the ConvNet of dataset distillation: D blocks of width W, instance norm or -bn (arXiv 2006.05929)",
        pattern=r"convnet-d(?P<depth>[1-9]\d*)-w(?P<width>[1-9]\d{0,3})(?P<norm>-bn)?",
        form="convnet-dD-wW or convnet-dD-wW-bn (W at most 9999)",
    ),
    Network(
        "resnet18-small",
        "raydc.networks.resnet:resnet18_small",
        "ResNet-18 with a 3x3 stem and no max-pooling, for small images",
    ),
    Network(
        "timm",
        "raydc.networks.libraries:timm",
        "a network of timm, without published weights",
        pattern=r"timm/(?P<name>[\w.\-]+)",
        form="timm/NAME",
    ),
    Network(
        "torchvision",
        "raydc.networks.libraries:torchvision",
        "a network of torchvision, without published weights",
        pattern=r"torchvision/(?P<name>[\w.\-]+)",
        form="torchvision/NAME",
    ),
):
    NETWORKS.add(_network)

CODECS: Registry[Codec] = Registry("codec")
for _codec in (
    Codec("fp16", "raydc.labels.codecs:Float16", "half precision, 2 bytes per value (FKD: VILA-Lab/SRe2L)"),
    Codec("fp32", "raydc.labels.codecs:Float32", "single precision, 4 bytes per value"),
    Codec(
        "q8", "raydc.labels.codecs:Quantised8", "8-bit steps from a record's smallest value to its largest"
    ),
    Codec(
        "q4", "raydc.labels.codecs:Quantised4", "4-bit steps from a record's smallest value to its largest"
    ),
):
    CODECS.add(_codec)

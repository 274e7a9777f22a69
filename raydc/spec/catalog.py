"""The catalogue: datasets, scores, methods, label kinds, augmentations and recipes by name.

A new one is one file with its code and one entry here (or in a plugin); listing, study files, the docs and
the contract tests find it by themselves.
"""

from __future__ import annotations

from typing import Any

from raydc.registry import Entry, Registry
from raydc.spec.entries import DatasetEntry, LabelKind, Method, RecipeEntry, Score
from raydc.spec.keys import Choice, Flag, Key, OneOf, Real, Text, Whole

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "LABELS",
    "METHODS",
    "RECIPES",
    "SCORES",
    "DatasetEntry",
    "LabelKind",
    "Method",
    "RecipeEntry",
    "Score",
]

DATASETS: Registry[DatasetEntry] = Registry("dataset")
METHODS: Registry[Method] = Registry("method")
SCORES: Registry[Score] = Registry("score")
LABELS: Registry[LabelKind] = Registry("label kind")
RECIPES: Registry[RecipeEntry] = Registry("recipe")
AUGMENTATIONS: Registry[Entry] = Registry("augmentation")

# --- datasets -----------------------------------------------------------------------------------

DATASETS.add(
    DatasetEntry(
        "digits",
        "raydc.data.builtin:digits",
        "1,797 handwritten digits of 8 x 8 pixels (scikit-learn); needs no files",
        val_fraction=297 / 1297,
    )
)
DATASETS.add(
    DatasetEntry(
        "cifar10",
        "raydc.data.builtin:cifar10",
        "CIFAR-10, 60,000 images of 32 x 32 pixels, 10 classes (torchvision)",
        fetchable=True,
    )
)
DATASETS.add(
    DatasetEntry(
        "cifar100",
        "raydc.data.builtin:cifar100",
        "CIFAR-100, 60,000 images of 32 x 32 pixels, 100 classes (torchvision)",
        fetchable=True,
    )
)

# --- scores -------------------------------------------------------------------------------------

for _score in (
    Score(
        "el2n",
        "raydc.teachers.scores:el2n",
        "mean error norm of the first ten epochs (arXiv 2107.07075)",
        epochs=10,
    ),
    Score(
        "forgetting",
        "raydc.teachers.scores:forgetting",
        "times that an image is unlearnt (arXiv 1812.05159)",
        least_epochs=2,
    ),
    Score("aum", "raydc.teachers.scores:aum", "logit margin over all epochs (arXiv 2001.10528)"),
    Score("loss", "raydc.teachers.scores:loss", "cross-entropy after the last epoch (arXiv 2406.10485)"),
    Score(
        "cad",
        "raydc.teachers.scores:cad",
        "spread of the true class's probability at the end of a short training (arXiv 2604.18811)",
        least_epochs=8,
    ),
):
    SCORES.add(_score)

# --- methods ------------------------------------------------------------------------------------

END = Key(
    "images.end",
    Choice(("easy", "hard")),
    "which end of the score is kept: the easiest images or the hardest",
    "easy",
)
BALANCE = Key(
    "images.balance",
    Choice(("class", "global")),
    "class: exactly ipc images of each class; global: ipc x classes images, whatever their classes",
    "class",
    inert=True,
)

METHODS.add(
    Method(
        "random",
        "raydc.methods.random_choice:select",
        "images drawn uniformly from each class",
        seeded=True,
    )
)
METHODS.add(
    Method(
        "herding",
        "raydc.methods.herding:select",
        "greedily keeps the mean of the penultimate features (Welling 2009)",
        needs="features",
    )
)
for _name, _summary in (
    ("el2n", "smallest or largest error norm early in training (arXiv 2107.07075)"),
    ("forgetting", "images that are never or often unlearnt in training (arXiv 1812.05159)"),
    ("aum", "largest or smallest area under the margin (arXiv 2001.10528)"),
    ("cad", "images that a training as long as the student's is just learning (arXiv 2604.18811)"),
):
    METHODS.add(
        Method(
            _name,
            "raydc.methods.by_score:select",
            _summary,
            keys=(END, BALANCE),
            needs="scores",
            scores=(_name,),
        )
    )
METHODS.add(
    Method(
        "kcenter",
        "raydc.methods.kcenter:select",
        "farthest images first, by penultimate features (arXiv 1708.00489)",
        seeded=True,
        needs="features",
    )
)
METHODS.add(
    Method(
        "ccs",
        "raydc.methods.ccs:select",
        "strata of a score without the hardest part (arXiv 2210.15809)",
        keys=(
            Key("images.score", Choice(SCORES.names), "score whose strata are covered", "aum", inert=True),
            Key(
                "images.beta",
                Real(low=0, below=1),
                "part of the whole set, hardest by margin, that is cut off first",
                0.0,
            ),
            BALANCE,
        ),
        seeded=True,
        needs="scores",
        scores=("aum",),
    )
)
METHODS.add(
    Method(
        "difficulty",
        "raydc.methods.difficulty:select",
        "a tenth of each class by a teacher's cross-entropy (arXiv 2406.10485)",
        keys=(
            Key(
                "images.band",
                OneOf((Whole(0, 9), Choice(("mix",)))),
                "band from 0 (easiest tenth of a class) to 9 (hardest), or mix",
                "mix",
            ),
            Key(
                "images.score_epoch",
                Whole(1),
                "epoch of the scorer whose cross-entropy makes the bands; default: its last",
                None,
            ),
        ),
        seeded=True,
        needs="scores",
        scores=("loss",),
    )
)

METHODS.add(
    Method(
        "pca",
        "raydc.methods.pca:select",
        "Prune, Combine, Augment: easy images, tiled whole (arXiv 2502.06434)",
        keys=(
            Key(
                "images.prune",
                Choice(lambda: ("none", *SCORES.names())),
                "score whose easiest images are kept; none draws at random",
                "el2n",
            ),
            Key(
                "images.combine",
                Choice(("1x1", "2x2", "3x3")),
                "grid of whole images in a stored image",
                "2x2",
            ),
        ),
        seeded=True,
        needs="scores",
    )
)
METHODS.add(
    Method(
        "noise",
        "raydc.methods.noise:select",
        "pure noise; what is learnt comes from the labels (arXiv 2502.06434)",
        seeded=True,
        from_train=False,
    )
)
METHODS.add(
    Method(
        "imported",
        "raydc.methods.imported:select",
        "a set that others made: tensors (.pt), HDF5, class folders or Parquet",
        keys=(
            Key(
                "images.path",
                Text(form="the path of a file or a folder"),
                "file or folder of the imported set; the first ipc images of each class are taken",
                file=True,
            ),
            Key(
                "images.space",
                Choice(("pixel", "normalised", "zca")),
                "what float images mean: pixels in [0, 1], or network inputs; default: the study's inputs",
                None,
                inert=True,
            ),
        ),
        from_train=False,
        brings_labels=True,
    )
)

# --- labels -------------------------------------------------------------------------------------

CLASS = OneOf((Whole(0), Text(form="the name of a class")))
TEACHER_KEYS = (
    Key(
        "labels.teacher",
        Text(form="the name of one of the study's teachers"),
        "which teacher labels the images",
        None,
    ),
    Key(
        "labels.teacher_epoch",
        Whole(0),
        "complete epochs after which the teacher labels; 0 is its initial weights; default: its last",
        None,
    ),
    Key(
        "labels.ensemble",
        Whole(1),
        "how many of the teacher's `count` networks label together, by the mean of their logits",
        1,
        inert=True,
    ),
    Key("labels.temperature", Real(above=0), "T in softmax(logits / T)", 1.0),
    Key(
        "labels.drop_class",
        CLASS,
        "class whose probability is set to 0 in the labels of all other classes' images",
        None,
        inert=True,
    ),
    Key(
        "labels.swap_rank",
        Whole(1),
        "rank (1 = largest) whose probability is exchanged with the smallest",
        None,
        inert=True,
    ),
    Key("labels.top_k", Whole(1), "how many of the largest probabilities are kept", None, inert=True),
    Key(
        "labels.renormalise",
        Flag(),
        "whether the kept probabilities are scaled to sum to one",
        False,
        inert=True,
    ),
    Key(
        "labels.store_top_k",
        Whole(1),
        "how many of the largest logits are stored; the softmax runs over these alone",
        None,
        inert=True,
    ),
    Key(
        "labels.codec",
        Choice(("fp16", "fp32", "q8", "q4")),
        "how the logits of a label are stored; sets labels_bytes and the precision of the labels",
        "fp16",
        inert=True,
    ),
)

LABELS.add(LabelKind("hard", "raydc.labels.kinds:hard", "the class of the image", soft=False))
LABELS.add(
    LabelKind(
        "stored",
        "raydc.labels.kinds:stored",
        "the soft labels that an imported set brings",
        brought=True,
    )
)
LABELS.add(
    LabelKind(
        "smooth",
        "raydc.labels.kinds:smooth",
        "the class with `smoothing` of the mass spread over all classes (arXiv 1512.00567)",
        keys=(
            Key(
                "labels.smoothing",
                Real(low=0, high=1),
                "mass that is spread evenly over all classes, the own one included",
                0.1,
            ),
        ),
    )
)
LABELS.add(
    LabelKind(
        "soft",
        "raydc.labels.kinds:soft",
        "one fixed vector an image, made from a teacher's logits (arXiv 2406.10485)",
        keys=TEACHER_KEYS,
        teacher=True,
    )
)
LABELS.add(
    LabelKind(
        "per_view",
        "raydc.labels.kinds:per_view",
        "the teacher labels every augmented view (FKD; arXiv 2312.03526, 2502.06434)",
        keys=(
            *TEACHER_KEYS,
            Key(
                "labels.keep_views",
                Real(above=0, high=1),
                "part of the views whose labels are stored and used again (arXiv 2410.15919)",
                1.0,
                inert=True,
            ),
        ),
        teacher=True,
        views=True,
    )
)

# --- augmentations, in the order in which they are applied -----------------------------------------

for _name, _summary in (
    ("dsa", "one of six operations a batch, random parameters an image (arXiv 2102.08259, mode S)"),
    ("crop", "zero-padded by an eighth and shifted back at random"),
    ("rrc", "random resized crop, area `crop_scale`, aspect 3/4 to 4/3"),
    ("tile_crop", "random resized crop inside one tile of the image (PCA, arXiv 2502.06434)"),
    ("flip", "mirrored left to right with probability one half"),
    ("cutout", "a square of half the side set to zero"),
    ("mixup", "each image blended with another of the batch (arXiv 1710.09412)"),
    ("cutmix", "a box of each image replaced from another of the batch (arXiv 1905.04899)"),
):
    AUGMENTATIONS.add(Entry(_name, f"raydc.augmentation.operations:{_name}", _summary))

# --- recipes ------------------------------------------------------------------------------------


def _recipe(name: str, source: str, summary: str, **values: Any) -> None:
    dotted = {("labels." if k == "temperature" else "train.") + k: v for k, v in values.items()}
    RECIPES.add(RecipeEntry(name, source, summary, values=dotted))


_recipe(
    "label-worth",
    "arXiv 2406.10485; sunnytqin/no-distillation: softlabel/nodistill.py, utils.py",
    "students of the soft-label study: SGD 0.01, x0.3 each quarter, 3,000 epochs, DSA",
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="quarters",
    epochs=3000,
    batch_size=256,
    loss="soft_ce",
    augment=("dsa",),
)
_LABEL_WORTH_EXPERT: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 5e-4,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": "constant",
    "epochs": 400,
    "batch_size": 256,
    "loss": "ce",
    "augment": ("dsa",),
}
_recipe(
    "label-worth-expert",
    "arXiv 2406.10485 Table 7 (CIFAR-10); sunnytqin/no-distillation: train_expert/buffer.py",
    "teachers of the soft-label study: plain SGD 0.0005, 400 epochs, DSA",
    **_LABEL_WORTH_EXPERT,
)
_recipe(
    "label-worth-expert-cifar100",
    "arXiv 2406.10485 Table 7 (CIFAR-100); sunnytqin/no-distillation: train_expert/buffer.py",
    "teachers of the soft-label study for CIFAR-100 (ConvNetD3): plain SGD 0.01, 150 epochs, DSA",
    **{**_LABEL_WORTH_EXPERT, "lr": 0.01, "epochs": 150},
)
_recipe(
    "label-worth-expert-tiny",
    "arXiv 2406.10485 Table 7 (Tiny-ImageNet); sunnytqin/no-distillation: train_expert/buffer.py",
    "teachers of the soft-label study for Tiny-ImageNet (ConvNetD4): plain SGD 0.01, 103 epochs, DSA",
    **{**_LABEL_WORTH_EXPERT, "lr": 0.01, "epochs": 103},
)
_recipe(
    "label-worth-expert-imagenet",
    "arXiv 2406.10485 Table 7 (ImageNet-1K); sunnytqin/no-distillation: train_expert/train.py",
    "teachers of the soft-label study for ImageNet-1K (ResNet-18/50) at IPC 50 and above; lr 5e-4 below",
    optimizer="sgd",
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="thirds",
    epochs=90,
    batch_size=256,
    loss="ce",
    augment=("rrc", "flip"),
)
_recipe(
    "mtt-expert",
    "arXiv 2203.11932; GeorgeCazenavette/mtt-distillation: buffer.py",
    "teachers of trajectory matching: plain SGD 0.01, 50 epochs, DSA",
    optimizer="sgd",
    lr=0.01,
    momentum=0.0,
    weight_decay=0.0,
    schedule="constant",
    epochs=50,
    batch_size=256,
    loss="ce",
    augment=("dsa",),
)

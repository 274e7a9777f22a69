"""The catalogue: all parts by name, from datasets to codecs.

A new part needs one file with its code and one entry: in this module, in label_kinds, recipes or
training_parts, or in a plugin. `raydc list`, study files, the docs and the contract tests then find it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from raydc.spec import label_kinds, recipes
from raydc.spec.entries import DatasetEntry, LabelKind, Method, Need, RecipeEntry, Score, TrackerEntry
from raydc.spec.keys import Choice, Flag, Key, OneOf, Real, Text, Whole
from raydc.spec.registry import Registry
from raydc.spec.training_entries import Augmentation, Codec, Loss, Network, Optimizer, Schedule
from raydc.spec.training_parts import AUGMENTATIONS, CODECS, LOSSES, NETWORKS, OPTIMIZERS, SCHEDULES

__all__ = [
    "AUGMENTATIONS",
    "CODECS",
    "DATASETS",
    "LABELS",
    "LOSSES",
    "METHODS",
    "NETWORKS",
    "OPTIMIZERS",
    "RECIPES",
    "REGISTRIES",
    "SCHEDULES",
    "SCORES",
    "TRACKERS",
    "TRACKING_URI",
    "Augmentation",
    "Codec",
    "DatasetEntry",
    "LabelKind",
    "Loss",
    "Method",
    "Need",
    "Network",
    "Optimizer",
    "RecipeEntry",
    "Schedule",
    "Score",
    "TrackerEntry",
]

DATASETS: Registry[DatasetEntry] = Registry("dataset")
METHODS: Registry[Method] = Registry("method")
SCORES: Registry[Score] = Registry("score")
LABELS: Registry[LabelKind] = Registry("label kind")
RECIPES: Registry[RecipeEntry] = Registry("recipe")
TRACKERS: Registry[TrackerEntry] = Registry("tracker")

REGISTRIES: tuple[Registry[Any], ...] = (
    DATASETS,
    METHODS,
    SCORES,
    LABELS,
    AUGMENTATIONS,
    LOSSES,
    SCHEDULES,
    OPTIMIZERS,
    NETWORKS,
    RECIPES,
    CODECS,
    TRACKERS,
)
"""All registries, in the order in which `raydc list` names them."""
WithKeys: TypeAlias = Method | Augmentation | Loss | Schedule | Optimizer
"""Entries that declare keys of study files."""

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
        "number of times that an image is forgotten in training (arXiv 1812.05159)",
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
    "which images are kept by the score: the easiest or the hardest",
    "easy",
)
BALANCE = Key(
    "images.balance",
    Choice(("class", "global")),
    "class: exactly ipc images of each class; global: ipc x classes images of any class",
    "class",
    inert=True,
)
COMBINE = Key(
    "images.combine",
    Choice(("1x1", "2x2", "3x3")),
    "grid of tiles in a stored image: whole images (pca), or crops (rded, whose factor is the side)",
    "2x2",
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
    ("forgetting", "images that are never or often forgotten in training (arXiv 1812.05159)"),
    ("aum", "largest or smallest area under the margin (arXiv 2001.10528)"),
    (
        "cad",
        "images that are just being learned at the end of a student-length training (arXiv 2604.18811)",
    ),
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
        "images from all strata of a score, without the hardest part (arXiv 2210.15809)",
        keys=(
            Key(
                "images.score",
                Choice(SCORES.names),
                "score by which the images are divided into strata",
                "aum",
                inert=True,
            ),
            Key(
                "images.beta",
                Real(low=0, below=1),
                "fraction of the whole set, hardest by margin, that is removed first",
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
                "epoch of the scorer whose cross-entropy defines the bands; default: its last",
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
                "score whose easiest images are kept; none draws images at random",
                "el2n",
            ),
            COMBINE,
        ),
        seeded=True,
        needs="scores",
    )
)
METHODS.add(
    Method(
        "rded",
        "raydc.methods.rded:select",
        "crops that an observer finds most realistic, tiled (arXiv 2312.03526); 1x1 extracts patches only",
        keys=(
            COMBINE,
            Key("images.crops", Whole(1), "random crops of each image, of which the best is kept", 5),
            Key(
                "images.mipc",
                Whole(1),
                "random images of each class that crops are cut from; all images of a smaller class",
                300,
            ),
        ),
        seeded=True,
        needs="observer",
    )
)
METHODS.add(
    Method(
        "noise",
        "raydc.methods.noise:select",
        "pure noise; the student learns from the labels only (arXiv 2502.06434)",
        seeded=True,
        from_train=False,
    )
)
METHODS.add(
    Method(
        "imported",
        "raydc.methods.imported:select",
        "an existing set from another project: tensors (.pt), HDF5, class folders or Parquet",
        keys=(
            Key(
                "images.path",
                Text(form="the path of a file or a folder, or hub:OWNER/NAME"),
                "file or folder of the imported set, or a dataset on the Hugging Face hub; its first ipc"
                " images of each class are used",
                file=True,
            ),
            Key(
                "images.space",
                Choice(("pixel", "normalised", "zca")),
                "what float images hold: pixels in [0, 1], or network inputs; default: the study's inputs",
                None,
                inert=True,
            ),
        ),
        from_train=False,
        brings_labels=True,
    )
)

# --- labels -------------------------------------------------------------------------------------

for _kind in label_kinds.KINDS:
    LABELS.add(_kind)

# --- recipes ------------------------------------------------------------------------------------

for _published in recipes.RECIPES:
    RECIPES.add(_published)

# --- trackers -----------------------------------------------------------------------------------

TRACKING_URI = Key(
    "tracking.uri",
    Text(form="a URI or a path"),
    "where the tracker records, such as http://HOST:5000; default: in the study's folder",
    None,
)
TRACKERS.add(
    TrackerEntry(
        "mlflow",
        "raydc.tracking.mlflow_tracker:create",
        "MLflow: one run per evaluation, on a server or in a SQLite database in the study's folder",
        keys=(
            TRACKING_URI,
            Key(
                "tracking.system_metrics",
                Flag(),
                "whether processor, memory, disk, network and GPU of the driver's machine are recorded",
                False,
            ),
        ),
        display_name="MLflow",
        local=True,
    )
)
TRACKERS.add(
    TrackerEntry(
        "none",
        "raydc.tracking.tracker:NoTracker",
        "records nothing; results stay in the study's folder",
        local=True,
        records=False,
    )
)

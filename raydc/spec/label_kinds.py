"""The kinds of labels: what a student may learn from, with the keys of `labels` that each reads."""

from __future__ import annotations

from dataclasses import replace

from raydc.spec.entries import LabelKind, Need
from raydc.spec.keys import Choice, Flag, Key, OneOf, Real, Text, Where, Whole
from raydc.spec.training_parts import CODECS

CLASS = OneOf((Whole(0), Text(form="the name of a class")))
WHOSE_KEYS = (
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
)
"""Keys that say which networks label."""
TEMPERATURE = Key("labels.temperature", Real(above=0), "T in softmax(logits / T)", 1.0)
SOFTENING_KEYS = (
    TEMPERATURE,
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
        Choice(CODECS.names),
        "how the logits of a label are stored; sets labels_bytes and the precision of the labels",
        "fp16",
        inert=True,
    ),
)
"""Keys that say what is made of logits (raydc.labels.softening.Softening)."""
KEEP_VIEWS = Key(
    "labels.keep_views",
    Real(above=0, high=1),
    "part of the views whose labels are stored and used again (arXiv 2410.15919)",
    1.0,
    inert=True,
)
ORDER_SEED = 42
"""What the published codes seed their sampler with (VILA-Lab/SRe2L, --fkd-seed)."""
LABELS_PATH = Key(
    "labels.path",
    Text(form="the path of a file or a folder"),
    "where labels of others lie: one file for the set (stored), or a folder of FKD's (fkd)",
    None,
    inert=True,
    file=True,
)

ORDER_SEED_KEY = Key(
    "labels.order_seed",
    Whole(0),
    "seed of the sampler that ordered the images, where the folder has no order.npy",
    ORDER_SEED,
)
FROM_TEACHER = (Where("labels.init", ("teacher",)),)
"""Condition that learned labels begin at a teacher's."""
LEARNING_KEYS = (
    Key("labels.init", Choice(("hard", "teacher")), "labels at which learning begins", "hard"),
    *(replace(key, where=FROM_TEACHER) for key in (*WHOSE_KEYS, TEMPERATURE)),
    Key("labels.unroll_steps", Whole(1), "steps of an inner training that are differentiated", 60),
    Key("labels.inner_steps", Whole(1), "longest inner training, in steps", 200),
    Key("labels.inner_lr", Real(above=0), "learning rate of the inner Adam", 1e-3),
    Key("labels.outer_steps", Whole(1), "how often the labels are moved", 1000),
    Key("labels.lr", Real(above=0), "learning rate of the Adam that moves the labels", 1e-3),
    Key("labels.real_batch", Whole(1), "real images of an outer step, at most", 5000),
)
"""Keys that say how labels are learned (raydc.labels.learned.BpttSettings)."""

LOGITS = Need("logits", WHOSE_KEYS)
VIEW_LOGITS = Need("view_logits", (*WHOSE_KEYS, KEEP_VIEWS))
SOFT_LABELS = Need("soft_labels", (LABELS_PATH,))
LABELLED_VIEWS = Need("labelled_views", (LABELS_PATH, ORDER_SEED_KEY, KEEP_VIEWS))
LEARNED = Need("learned", LEARNING_KEYS)
"""What a kind may need, with the keys that describe it."""

KINDS = (
    LabelKind("hard", "raydc.labels.kinds:hard", "the class of the image", soft=False),
    LabelKind(
        "stored",
        "raydc.labels.kinds:stored",
        "the soft labels that an imported set brings, or those of the file `labels.path`",
        needs=(SOFT_LABELS,),
        differentiable=True,
    ),
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
    ),
    LabelKind(
        "learned",
        "raydc.labels.kinds:learned",
        "learnt by back-propagation through the student's training (RaT-BPTT, arXiv 2311.07025, 2406.10485)",
        needs=(LEARNED, Need("logits", where=FROM_TEACHER)),
        differentiable=True,
    ),
    LabelKind(
        "soft",
        "raydc.labels.kinds:soft",
        "one fixed vector an image, made from a teacher's logits (arXiv 2406.10485)",
        keys=SOFTENING_KEYS,
        needs=(LOGITS,),
        offers_logits=True,
        differentiable=True,
    ),
    LabelKind(
        "per_view",
        "raydc.labels.kinds:per_view",
        "the teacher labels every augmented view (FKD; arXiv 2312.03526, 2502.06434)",
        keys=SOFTENING_KEYS,
        needs=(VIEW_LOGITS,),
        offers_logits=True,
    ),
    LabelKind(
        "fkd",
        "raydc.labels.kinds:fkd",
        "views that others cropped, mixed and labelled, met as their files say (FKD, arXiv 2112.01528)",
        keys=SOFTENING_KEYS,
        needs=(LABELLED_VIEWS,),
        offers_logits=True,
    ),
)

"""The label kinds: what a student may be trained on, with the keys of `labels` that each kind reads."""

from __future__ import annotations

from dataclasses import replace

from raydc.spec.entries import LabelKind, Need
from raydc.spec.keys import Choice, Flag, Key, OneOf, Real, Text, Where, Whole
from raydc.spec.training_parts import CODECS

CLASS = OneOf((Whole(0), Text(form="the name of a class")))
NETWORK_KEYS = (
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
        "number of the teacher's `count` networks whose mean logits label the images",
        1,
        inert=True,
    ),
)
"""Keys that select the networks that label."""
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
    Key("labels.top_k", Whole(1), "number of largest probabilities that are kept", None, inert=True),
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
        "number of largest logits that are stored; the softmax is taken over these only",
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
"""Keys that describe how labels are made from logits (raydc.labels.softening.Softening)."""
KEEP_VIEWS = Key(
    "labels.keep_views",
    Real(above=0, high=1),
    "fraction of the views whose labels are stored and used repeatedly (arXiv 2410.15919)",
    1.0,
    inert=True,
)
ORDER_SEED = 42
"""Seed of the sampler in the published code (VILA-Lab/SRe2L, --fkd-seed)."""
LABELS_PATH = Key(
    "labels.path",
    Text(form="the path of a file or a folder"),
    "existing labels from another project: one file for the set (stored), or a folder of FKD (fkd)",
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
"""Condition that learned labels start from a teacher's."""
LEARNING_KEYS = (
    Key("labels.init", Choice(("hard", "teacher")), "labels from which learning starts", "hard"),
    *(replace(key, where=FROM_TEACHER) for key in (*NETWORK_KEYS, TEMPERATURE)),
    Key("labels.unroll_steps", Whole(1), "steps of an inner training that gradients flow through", 60),
    Key("labels.inner_steps", Whole(1), "longest inner training, in steps", 200),
    Key("labels.inner_lr", Real(above=0), "learning rate of the inner Adam", 1e-3),
    Key("labels.outer_steps", Whole(1), "number of updates of the labels", 1000),
    Key("labels.lr", Real(above=0), "learning rate of the Adam that updates the labels", 1e-3),
    Key("labels.real_batch", Whole(1), "largest number of real images per outer step", 5000),
)
"""Keys that describe how labels are learned (raydc.labels.learned.BpttSettings)."""

LOGITS = Need("logits", NETWORK_KEYS)
VIEW_LOGITS = Need("view_logits", (*NETWORK_KEYS, KEEP_VIEWS))
SOFT_LABELS = Need("soft_labels", (LABELS_PATH,))
LABELLED_VIEWS = Need("labelled_views", (LABELS_PATH, ORDER_SEED_KEY, KEEP_VIEWS))
LEARNED = Need("learned", LEARNING_KEYS)
"""Inputs that a label kind may need, with the keys that describe them."""

KINDS = (
    LabelKind("hard", "raydc.labels.kinds:hard", "the class of the image", soft=False),
    LabelKind(
        "stored",
        "raydc.labels.kinds:stored",
        "the soft labels in an imported set, or in the file `labels.path`",
        needs=(SOFT_LABELS,),
        differentiable=True,
    ),
    LabelKind(
        "smooth",
        "raydc.labels.kinds:smooth",
        "the class, with probability mass `smoothing` spread evenly over all classes (arXiv 1512.00567)",
        keys=(
            Key(
                "labels.smoothing",
                Real(low=0, high=1),
                "probability mass that is spread evenly over all classes, including the image's own",
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
        "one fixed vector per image, made from a teacher's logits (arXiv 2406.10485)",
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
        "views that were cropped, mixed and labelled by FKD, replayed from its files (arXiv 2112.01528)",
        keys=SOFTENING_KEYS,
        needs=(LABELLED_VIEWS,),
        offers_logits=True,
    ),
)

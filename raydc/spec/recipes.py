"""The published recipes: the hyperparameters with which the papers train students, teachers and scorers.

Batch sizes, learning rates and lengths are taken from the files that each entry refers to. Schedules count
steps, where some of those files count epochs.
"""

from __future__ import annotations

from typing import Any

from raydc.spec.entries import RecipeEntry


def _recipe(name: str, source: str, summary: str, *, note: str = "", **values: Any) -> RecipeEntry:
    dotted = {("labels." if k == "temperature" else "train.") + k: v for k, v in values.items()}
    return RecipeEntry(name, source, summary, values=dotted, note=note)


def _sgd(lr: float, momentum: float, weight_decay: float, schedule: str) -> dict[str, Any]:
    return {
        "optimizer": "sgd",
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
    }


def _adamw(lr: float, schedule: str) -> dict[str, Any]:
    return {"optimizer": "adamw", "lr": lr, "weight_decay": 0.01, "schedule": schedule}


EXPERT: dict[str, Any] = {"batch_size": 256, "loss": "ce", "augment": ("dsa",)}
RETHINKING = "ArmandXiao/Rethinking-Dataset-Compression: rethinkdc/dc_config"
STANDARD: dict[str, Any] = {"epochs": 300, "batch_size": 128, "crop_scale": (0.08, 1.0)}
STANDARD_SOFT: dict[str, Any] = {
    "loss": "kl",
    "temperature": 20.0,
    "augment": ("rrc", "flip", "cutmix"),
    "cutmix_alpha": 1.0,
}
STANDARD_HARD: dict[str, Any] = {"loss": "ce", "augment": ("rrc", "flip")}
STANDARD_NOTE = "The paper trains ResNet-18 at 224 pixels; standard-soft is used with labels of every view."

RECIPES = (
    # --- arXiv 2406.10485 and trajectory matching -----------------------------------------------
    _recipe(
        "label-worth",
        "arXiv 2406.10485; sunnytqin/no-distillation: softlabel/nodistill.py, utils.py",
        "students of the soft-label study: SGD 0.01, x0.3 after each quarter, 3,000 epochs, DSA",
        **_sgd(0.01, 0.9, 5e-4, "quarters"),
        epochs=3000,
        batch_size=256,
        loss="soft_ce",
        augment=("dsa",),
    ),
    _recipe(
        "label-worth-imagenet",
        "arXiv 2406.10485 Table 7 (ImageNet-1K); sunnytqin/no-distillation: softlabel",
        "students of the soft-label study on ImageNet-1K: AdamW 0.005, cosine, 300 epochs, rrc",
        **_adamw(0.005, "cosine"),
        epochs=300,
        batch_size=256,
        loss="soft_ce",
        augment=("rrc", "flip"),
        crop_scale=(0.08, 1.0),
        note="Table 7 has 0.001 at IPC 1 and 0.002 at IPC 200; the number of epochs is not published.",
    ),
    _recipe(
        "label-worth-expert",
        "arXiv 2406.10485 Table 7 (CIFAR-10); sunnytqin/no-distillation: train_expert/buffer.py",
        "teachers of the soft-label study: plain SGD 0.0005, 400 epochs, DSA",
        **_sgd(5e-4, 0.0, 0.0, "constant"),
        **EXPERT,
        epochs=400,
    ),
    _recipe(
        "label-worth-expert-cifar100",
        "arXiv 2406.10485 Table 7 (CIFAR-100); sunnytqin/no-distillation: train_expert/buffer.py",
        "teachers of the soft-label study for CIFAR-100 (ConvNetD3): plain SGD 0.01, 150 epochs, DSA",
        **_sgd(0.01, 0.0, 0.0, "constant"),
        **EXPERT,
        epochs=150,
    ),
    _recipe(
        "label-worth-expert-tiny",
        "arXiv 2406.10485 Table 7 (Tiny-ImageNet); sunnytqin/no-distillation: train_expert/buffer.py",
        "teachers of the soft-label study for Tiny-ImageNet (ConvNetD4): plain SGD 0.01, 103 epochs, DSA",
        **_sgd(0.01, 0.0, 0.0, "constant"),
        **EXPERT,
        epochs=103,
    ),
    _recipe(
        "label-worth-expert-imagenet",
        "arXiv 2406.10485 Table 7 (ImageNet-1K); sunnytqin/no-distillation: train_expert/train.py",
        "teachers of the soft-label study for ImageNet-1K (ResNet-18/50): SGD 0.1, 90 epochs, x0.1 every 30",
        **_sgd(0.1, 0.9, 1e-4, "thirds"),
        epochs=90,
        batch_size=256,
        loss="ce",
        augment=("rrc", "flip"),
        crop_scale=(0.08, 1.0),
        note="Table 7 has 0.0005 for the labels of IPC 1 and 10.",
    ),
    _recipe(
        "mtt-expert",
        "arXiv 2203.11932; GeorgeCazenavette/mtt-distillation: buffer.py",
        "teachers of trajectory matching: plain SGD 0.01, 50 epochs, DSA",
        **_sgd(0.01, 0.0, 0.0, "constant"),
        **EXPERT,
        epochs=50,
    ),
    _recipe(
        "matching",
        "arXiv 2203.11932, 2110.04181; VICO-UoE/DatasetCondensation: utils.py",
        "students of MTT and DM: SGD 0.01, x0.1 after half of 1,000 epochs, DSA",
        **_sgd(0.01, 0.9, 5e-4, "halfway"),
        epochs=1000,
        batch_size=256,
        loss="soft_ce",
        augment=("dsa",),
        note="MTT instead uses the learning rate that it learned together with the images.",
    ),
    # --- arXiv 2502.06434 -----------------------------------------------------------------------
    _recipe(
        "standard-soft",
        f"arXiv 2502.06434; {RETHINKING}/standard_soft_config.yaml",
        "the unified protocol with soft labels: AdamW 0.001, cosine, 300 epochs, CutMix, KL at T 20",
        **_adamw(0.001, "cosine"),
        **STANDARD,
        **STANDARD_SOFT,
        note=STANDARD_NOTE,
    ),
    _recipe(
        "standard-hard",
        f"arXiv 2502.06434; {RETHINKING}/standard_hard_config.yaml",
        "the unified protocol with hard labels: AdamW 0.001, cosine, 300 epochs, no mixing",
        **_adamw(0.001, "cosine"),
        **STANDARD,
        **STANDARD_HARD,
        note=STANDARD_NOTE,
    ),
    _recipe(
        "standard-soft-sgd",
        f"arXiv 2502.06434 (SGD setting); {RETHINKING}",
        "standard-soft with SGD 0.1",
        **_sgd(0.1, 0.9, 1e-4, "cosine"),
        **STANDARD,
        **STANDARD_SOFT,
    ),
    _recipe(
        "standard-hard-sgd",
        f"arXiv 2502.06434 (SGD setting); {RETHINKING}",
        "standard-hard with SGD 0.1",
        **_sgd(0.1, 0.9, 1e-4, "cosine"),
        **STANDARD,
        **STANDARD_HARD,
    ),
    # --- labels of every view: SRe2L, CDA, RDED, G-VBSM -----------------------------------------
    _recipe(
        "sre2l",
        "arXiv 2306.13092; VILA-Lab/SRe2L: SRe2L/validate/train_FKD.sh",
        "FKD students on ImageNet-1K: AdamW 0.001, cosine, 300 epochs, batch 1,024, CutMix, KL at T 20",
        **_adamw(0.001, "cosine"),
        **{**STANDARD, "batch_size": 1024},
        **STANDARD_SOFT,
    ),
    _recipe(
        "cda",
        "arXiv 2311.18838; VILA-Lab/SRe2L: CDA",
        "as sre2l, with batch 128",
        **_adamw(0.001, "cosine"),
        **STANDARD,
        **STANDARD_SOFT,
    ),
    _recipe(
        "sre2l-tiny",
        "arXiv 2306.13092, 2410.15919; VILA-Lab/SRe2L: *small_dataset (Tiny-ImageNet)",
        "KD students on Tiny-ImageNet: SGD 0.2, 5 epochs of warm-up, cosine, 100 epochs, T^2 KL at T 20",
        **_sgd(0.2, 0.9, 1e-4, "cosine"),
        warmup_epochs=5,
        epochs=100,
        batch_size=256,
        loss="kl_t2",
        temperature=20.0,
        augment=("rrc", "flip"),
        crop_scale=(0.08, 1.0),
        note="LPLD uses batch 64.",
    ),
    _recipe(
        "sre2l-cifar",
        "arXiv 2306.13092; VILA-Lab/SRe2L: *small_dataset (CIFAR-100)",
        "KD students on CIFAR-100: AdamW 0.001, cosine, 400 epochs, mixup, KL at T 30",
        **_adamw(0.001, "cosine"),
        epochs=400,
        batch_size=128,
        loss="kl",
        temperature=30.0,
        augment=("crop", "flip", "mixup"),
        mixup_alpha=0.8,
    ),
    _recipe(
        "rded",
        "arXiv 2312.03526; LINs-lab/RDED: argument.py, validation/main.py",
        "RDED's students: AdamW 0.001, cosine that ends at half, 300 epochs, shuffled patches, KL at T 20",
        **_adamw(0.001, "half-cosine"),
        epochs=300,
        batch_size=100,
        loss="kl",
        temperature=20.0,
        augment=("patch_shuffle", "rrc", "flip", "cutmix"),
        crop_scale=(0.5, 1.0),
        cutmix_alpha=1.0,
        note=(
            "crop_scale begins at 1 / factor: 0.5 for 2 x 2 tiles, [1, 1] for one. RDED's batch "
            "follows the IPC: 10 at 1, 50 at 10, 100 at 50, twice as much for 100 or 1,000 classes, 100 for "
            "Tiny-ImageNet. It reports the best of several tests; see train.test_every."
        ),
    ),
    _recipe(
        "g-vbsm",
        "arXiv 2311.17950; shaoshitong/G_VBSM_Dataset_Condensation (ImageNet-1K)",
        "G-VBSM's students: AdamW 0.001, cosine, 300 epochs, batch 1,024, MSE + 0.1 CE, CutMix",
        **_adamw(0.001, "cosine"),
        **{**STANDARD, "batch_size": 1024},
        loss="mse_ce",
        augment=("rrc", "flip", "cutmix"),
        cutmix_alpha=1.0,
        note="On CIFAR-10 it is batch 100 for 1,000 epochs, and the weight of CE is 0.15.",
    ),
    # --- DD-Ranking -----------------------------------------------------------------------------
    _recipe(
        "dd-ranking-dm",
        "arXiv 2505.13300; NUS-HPC-AI-Lab/DD-Ranking: DM/CIFAR10/IPC10.yaml",
        "DD-Ranking's students for DC, DSA, DM, MTT, DATM: SGD 0.01, x0.1 after half, 1,000 epochs, DSA",
        **_sgd(0.01, 0.9, 5e-4, "halfway"),
        epochs=1000,
        batch_size=256,
        loss="soft_ce",
        augment=("dsa",),
        note="The learning rate of random images is tuned over 0.001, 0.005, 0.01, 0.05 and 0.1.",
    ),
    _recipe(
        "dd-ranking-rded",
        "arXiv 2505.13300; NUS-HPC-AI-Lab/DD-Ranking: RDED/CIFAR10/IPC10.yaml",
        "DD-Ranking's students for RDED: AdamW 0.01, cosine that ends at half, 300 epochs, CutMix, T 20",
        **_adamw(0.01, "half-cosine"),
        epochs=300,
        batch_size=100,
        loss="kl",
        temperature=20.0,
        augment=("cutmix",),
        cutmix_alpha=1.0,
        note=(
            "The learning rate of random images is tuned over 0.001, 0.005, 0.01, 0.05 and 0.1; on ImageNet "
            "the images are cropped (rrc) and flipped as well."
        ),
    ),
    # --- coresets -------------------------------------------------------------------------------
    _recipe(
        "ccs",
        "arXiv 2210.15809; haizhongzheng/Coverage-centric-coreset-selection: train.py (CIFAR)",
        "students of CCS: SGD 0.1 with Nesterov's momentum, cosine, 40,000 steps for any size of the set",
        **_sgd(0.1, 0.9, 5e-4, "cosine"),
        nesterov=True,
        steps=40_000,
        batch_size=256,
        loss="soft_ce",
        augment=("crop", "flip"),
        note=(
            "The original cosine ends at 0.0001 and its crop pads by reflection; here it ends at 0 and "
            "the crop pads with zeros."
        ),
    ),
    _recipe(
        "ccs-scorer",
        "arXiv 2210.15809; haizhongzheng/Coverage-centric-coreset-selection: train.py (CIFAR)",
        "the scorer of CCS: SGD 0.1 with Nesterov's momentum, cosine, 200 epochs",
        **_sgd(0.1, 0.9, 5e-4, "cosine"),
        nesterov=True,
        epochs=200,
        batch_size=256,
        loss="ce",
        augment=("crop", "flip"),
        note="Scores are recorded on clean images after each epoch; the original uses the training batches.",
    ),
    _recipe(
        "deepcore",
        "arXiv 2204.08499; PatrickZH/DeepCore: main.py",
        "students of DeepCore: SGD 0.1 with Nesterov's momentum, cosine, 200 epochs",
        **_sgd(0.1, 0.9, 5e-4, "cosine"),
        nesterov=True,
        epochs=200,
        batch_size=128,
        loss="soft_ce",
        augment=("crop", "flip"),
        note="The original cosine ends at 0.0001, its crop pads by reflection, and its default batch is 256.",
    ),
)

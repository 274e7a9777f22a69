"""(c) Label store: bytes and decoding speed by codec, against FKD's fp16 files.

    python -m benchmarks.label_store [--device cuda]

Logits are synthetic, with the shape for 10 to 10,450 classes (CIFAR-10, CIFAR-100, ImageNet-1K,
ImageNet-21K). FKD takes 2 C + 25 bytes per image and epoch; `keep` is `labels.keep_views`. The study `raydc
run label-store` measures the effect of the codecs on accuracy.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.record import publish
from raydc.labels import codecs
from raydc.labels.fkd import METADATA_BYTES

CLASSES = (10, 100, 1000, 10450)
KEPT = {10: 3, 100: 10, 1000: 10, 10450: 100}
SCHEMES = (
    ("fp32", False, 1.0),
    ("fp16", False, 1.0),
    ("q8", False, 1.0),
    ("q4", False, 1.0),
    ("fp16", True, 1.0),
    ("q8", True, 1.0),
    ("fp16", False, 0.1),
    ("q4", False, 0.1),
    ("q8", True, 0.1),
    ("q8", True, 0.05),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--values", type=int, default=4_000_000, help="number of logits per measurement")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for classes in CLASSES:
        count = max(64, chosen.values // classes)
        logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0)) * 3
        logits = logits.to(chosen.device)
        fkd = 2 * classes + METADATA_BYTES
        for codec, sparse, keep in SCHEMES:
            kept = KEPT[classes] if sparse else None
            encoded = codecs.encode(logits, codec, kept)
            record = codecs.record_bytes(codec, classes, kept)
            assert encoded.nbytes == record * count
            seconds = []
            for _ in range(5):
                start = time.perf_counter()
                decoded = encoded.decode()
                if chosen.device == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
            assert decoded.shape == logits.shape
            rows.append(
                {
                    "classes": classes,
                    "codec": codec,
                    "store_top_k": kept,
                    "keep_views": keep,
                    "bytes a label": record,
                    "bytes a view": record * keep,
                    "x smaller than FKD": fkd / (record * keep),
                    # Decoding produces fp32, so fp32 itself needs none.
                    "decoded labels/s": None if codec == "fp32" else count / statistics.median(seconds),
                }
            )
    publish(f"label-store-{chosen.device}", rows, chosen.device)


if __name__ == "__main__":
    main()

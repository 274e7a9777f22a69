"""noise: pure noise, N(0, 1) in the space of the network's inputs (arXiv 2502.06434 Table 20).

A student can learn from the labels only.
"""

from __future__ import annotations

import numpy as np

from raydc.methods.pool import Made, Pool


def select(pool: Pool) -> Made:
    """IPC images of each class, float32 in the study's input space."""
    labels = np.repeat(np.asarray(pool.classes, np.int64), pool.ipc)
    images = pool.generator.standard_normal((len(labels), *pool.shape), dtype=np.float32)
    return Made(images, labels, space=pool.space)

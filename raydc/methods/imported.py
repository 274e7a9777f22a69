"""imported: a compressed set of another project (SRe2L, MTT, RDED, ...), read by raydc.data.imported.

The first IPC images of each class are used, in the order of the file.
"""

from __future__ import annotations

import numpy as np

from raydc.data.imported import read_set
from raydc.errors import InputError
from raydc.methods.pool import Made, Pool


def select(pool: Pool, *, path: str, space: str | None = None) -> Made:
    """IPC images of each class, class by class, with the soft labels of the set, if it has any.

    Float images are in `space`, by default that of the study's inputs; `pixel` is in [0, 1].
    Raises `InputError` if the set does not exist or does not fit the data.
    """
    found = read_set(path, pool.class_names)
    images = found.images
    if images.shape[1:] != pool.shape:
        given, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], pool.shape))
        raise InputError(
            f"images.path is {path!r}, whose images are {given}, but the data are {wanted} (channels, height "
            "and width); set dataset.resolution to match"
        )
    if images.dtype == np.uint8:
        meant = "pixel"
    else:
        meant = space or found.space or pool.space
        if not np.isfinite(images).all():
            raise InputError(f"images.path is {path!r}, which contains values that are not finite")
        if meant == "pixel":
            if images.min() < 0 or images.max() > 1:
                raise InputError(
                    f"images.path is {path!r}, whose values range from {images.min():.3g} to "
                    f"{images.max():.3g}, but those of the space pixel are from 0 to 1; set images.space"
                )
            images = np.rint(images * 255).astype(np.uint8)
        elif meant != pool.space:
            raise InputError(
                f"images.path is {path!r}, whose space is {meant}, but the study's inputs are {pool.space}; "
                "set dataset.zca to match"
            )
    rows = np.concatenate([np.flatnonzero(found.labels == c)[: pool.ipc] for c in pool.classes])
    counts = np.bincount(found.labels[rows], minlength=max(pool.classes) + 1)
    short = [c for c in pool.classes if counts[c] < pool.ipc]
    if short:
        raise InputError(
            f"images.path is {path!r}, which has {counts[short[0]]} images of the class "
            f"{pool.class_names[short[0]]!r}, but images.ipc is {pool.ipc}; choose at most "
            f"{min(counts[list(pool.classes)])}"
        )
    soft = None if found.soft_labels is None else found.soft_labels[rows]
    return Made(images[rows], found.labels[rows], grid=found.grid, space=meant, soft_labels=soft)

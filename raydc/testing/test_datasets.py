"""The contract of datasets that need no files: two splits, labels in range, deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from raydc.spec.catalog import DATASETS, DatasetEntry
from raydc.testing.parts import under_test

FILELESS = [entry for entry in under_test(DATASETS) if not entry.fetchable]


@pytest.mark.parametrize("dataset", FILELESS, ids=lambda entry: entry.name)
def test_it_has_images_of_every_class(dataset: DatasetEntry) -> None:
    source, again = dataset.load()(None, False), dataset.load()(None, False)
    assert source.stamp == again.stamp
    for split in (source.train, source.test):
        labels = split.labels
        assert set(np.unique(labels)) == set(range(len(source.class_names)))
        image = split.image(0)
        assert image.dtype == np.uint8
        assert image.ndim in (2, 3)

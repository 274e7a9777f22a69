"""The hub: what is asked of it, and what is said when it does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from raydc.data.dataset import open_dataset
from raydc.data.hub import FILES, hub_folder
from raydc.data.image_set import CompressedSet
from raydc.data.imported import digest_of, read_set
from raydc.errors import InputError
from raydc.spec.evaluation import DatasetSpec
from raydc.store.local import LocalStore

NAMES = ("zero", "one")


class Hub:
    """Stands in for the hub: gives one folder, and remembers what it was asked."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.asked: list[dict[str, Any]] = []

    def __call__(self, name: str, **options: Any) -> str:
        self.asked.append({"name": name, **options})
        if self.folder is None:
            raise LocalEntryNotFoundError("nothing in the cache")
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    pixels = np.arange(4 * 3 * 8 * 8, dtype=np.uint8).reshape(4, 3, 8, 8)
    CompressedSet.from_pixels(pixels, np.array([0, 0, 1, 1])).save(tmp_path, "png", NAMES)
    given = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", given)
    return given


def test_a_set_on_the_hub_is_read_as_its_folder_is(hub: Hub, tmp_path: Path) -> None:
    found = read_set("hub:he-yang/some-set@v1", NAMES)
    np.testing.assert_array_equal(found.images, read_set(str(tmp_path), NAMES).images)
    assert digest_of("images.path", "hub:he-yang/some-set@v1") == digest_of("images.path", str(tmp_path))
    assert hub.asked[0] == {
        "name": "he-yang/some-set",
        "repo_type": "dataset",
        "revision": "v1",
        "allow_patterns": list(FILES),
        "local_files_only": True,
    }


def test_nothing_is_fetched_unless_it_is_asked_for(hub: Hub) -> None:
    hub_folder("dataset.hub", "owner/name", download=False)
    hub_folder("dataset.hub", "owner/name", download=True)
    assert [asked["local_files_only"] for asked in hub.asked] == [True, False]


def test_a_dataset_on_the_hub_needs_parquet_files_of_its_splits(hub: Hub, store: LocalStore) -> None:
    with pytest.raises(InputError, match=r"dataset.hub is .* there must be train-\*.parquet"):
        open_dataset(DatasetSpec("x", "hub", "owner/name"), store)


@pytest.mark.parametrize(
    ("name", "download", "said"),
    [
        ("cifar10", False, "must be OWNER/NAME"),
        ("a/b/../c", False, "must be OWNER/NAME"),
        ("owner/name", False, "download it with --download"),
        ("owner/name", True, "the hub cannot be reached"),
    ],
)
def test_what_the_hub_does_not_give_is_refused(
    name: str, download: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(None))
    with pytest.raises(InputError, match=said):
        hub_folder("dataset.hub", name, download)

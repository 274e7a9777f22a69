"""What is fuzzed: each target takes bytes as a file from a stranger, and may refuse them in one sentence.

Anything else that a target raises is a bug of raydc. Seeds are small valid files.
"""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save as safetensors

from raydc.data.array_file import read_array, read_weights
from raydc.data.image_folder import folder
from raydc.data.image_set import CompressedSet
from raydc.data.imported import read_set
from raydc.data.parquet import parquet
from raydc.data.pixels import planes
from raydc.data.source import Source
from raydc.errors import ArtifactError, InputError
from raydc.labels.fkd import FkdBatch, read_batch, write_batch
from raydc.labels.logits_file import FILE, read_logits, write_logits
from raydc.spec import shipped_studies
from raydc.spec.study import parse_study
from raydc.store.artifact import MANIFEST
from raydc.store.local import LocalStore
from raydc.study.sync import read_results
from raydc.teachers.checkpoint import read_buffer, read_state
from raydc.tracking.ledger import FILE as LEDGER
from raydc.tracking.ledger import encode, read_rows

REFUSALS = (InputError, ArtifactError)
"""The documented errors; their text is one sentence."""
NAMES = ("ant", "bee", "cat")
GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
FLOATS = torch.from_numpy(GENERATOR.standard_normal((6, 3, 8, 8)).astype(np.float32))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
SOFT = torch.eye(3)[LABELS] * 0.7 + 0.1
MOST_IMAGES = 8
"""Images of a dataset that are decoded."""


@dataclass(frozen=True)
class Target:
    """A reader, and valid files for it."""

    name: str
    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@cache
def scratch() -> Path:
    """A folder for the files of this process."""
    folder = Path(tempfile.mkdtemp(prefix="raydc-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def written(name: str, content: bytes) -> Path:
    """`content` as the file `name` in the scratch folder."""
    path = scratch() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def saved(value: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


# --- study files --------------------------------------------------------------------------------


def read_study(content: bytes) -> None:
    parse_study(content.decode("utf-8", "replace"), "study.yaml")


def studies() -> list[bytes]:
    return [path.read_bytes() for path in sorted(shipped_studies.folder().glob("*.yaml"))]


# --- datasets -----------------------------------------------------------------------------------


def _decode(source: Source) -> None:
    for number in range(min(MOST_IMAGES, len(source.train.labels))):
        planes(source.train.image(number), 8)


def read_parquet(content: bytes) -> None:
    for split in ("train", "test"):
        written(f"parquet/{split}-0.parquet", content)
    _decode(parquet(str(scratch() / "parquet")))


def encoded(image: np.ndarray, kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def table(**more: pa.Array) -> pa.Table:
    items = [{"bytes": encoded(image), "path": f"{row}.png"} for row, image in enumerate(PIXELS)]
    feature = {"info": {"features": {"label": {"names": list(NAMES), "_type": "ClassLabel"}}}}
    made = pa.table({"image": pa.array(items), "label": LABELS.numpy(), **more})
    return made.replace_schema_metadata({"huggingface": json.dumps(feature)})


def parquets() -> list[bytes]:
    made = []
    for options in ({"compression": "none"}, {"compression": "snappy"}, {"use_dictionary": False}):
        buffer = io.BytesIO()
        pq.write_table(table(), buffer, **options)
        made.append(buffer.getvalue())
    return made


def read_image(content: bytes) -> None:
    """An image in a folder of images."""
    for split in ("train", "test"):
        written(f"folder/{split}/ant/0.png", content)
    _decode(folder(str(scratch() / "folder")))


def images() -> list[bytes]:
    kinds = [("PNG", "RGB"), ("PNG", "P"), ("PNG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("BMP", "RGB")]
    kinds += [("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "1"), ("WEBP", "RGB"), ("PPM", "RGB"), ("PNG", "LA")]
    return [encoded(PIXELS[0], kind, mode) for kind, mode in kinds]


# --- sets of others -----------------------------------------------------------------------------


def read_torch_set(content: bytes) -> None:
    read_set(str(written("set.pt", content)), NAMES)


def torch_sets() -> list[bytes]:
    contents: list[object] = [
        {"images": FLOATS, "labels": SOFT},
        {"data": [[FLOATS, LABELS]]},
        (FLOATS.half(), LABELS.tolist()),
    ]
    return [saved(content) for content in contents] + [saved(contents[0], legacy=True)]


def in_archive(stream: bytes) -> bytes:
    """A pickle as torch.save puts it into an archive, beside the bytes of two tensors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("set/data.pkl", stream)
        archive.writestr("set/byteorder", "little")
        archive.writestr("set/data/0", FLOATS.numpy().tobytes())
        archive.writestr("set/data/1", SOFT.numpy().tobytes())
        archive.writestr("set/version", "3\n")
    return buffer.getvalue()


def read_pickle(content: bytes) -> None:
    """The pickle inside of an archive, which is sound around it; as a set, labels and a checkpoint."""
    for name, read in (("pickle.pt", _as_set), ("pickle.tar", read_batch), ("state.pt", _as_state)):
        try:
            read(written(name, in_archive(content)))
        except REFUSALS as error:
            sentence(error)


def _as_set(path: Path) -> None:
    read_set(str(path), NAMES)


def _as_state(path: Path) -> None:
    read_state(str(path))


def pickles() -> list[bytes]:
    found = []
    for content in [*torch_sets()[:3], *fkd_files(), *checkpoints()[:1]]:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found.append(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    return found


def read_hdf5_set(content: bytes) -> None:
    read_set(str(written("set.h5", content)), NAMES)


def hdf5_sets() -> list[bytes]:
    made = []
    for options in ({}, {"chunks": True, "compression": "gzip"}):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("data", data=FLOATS.numpy(), **options)
            file.create_dataset("label", data=SOFT.numpy(), **options)
        made.append(buffer.getvalue())
    return made


def read_parquet_set(content: bytes) -> None:
    read_set(str(written("sets/set.parquet", content).parent), NAMES)


def parquet_sets() -> list[bytes]:
    buffer = io.BytesIO()
    pq.write_table(table(soft_label=pa.array(SOFT.tolist(), pa.list_(pa.float32()))), buffer)
    own = CompressedSet.from_pixels(PIXELS.transpose(0, 3, 1, 2), LABELS.numpy())
    own.save(scratch(), "png", NAMES)
    return [buffer.getvalue(), (scratch() / "set.parquet").read_bytes()]


# --- checkpoints and labels ---------------------------------------------------------------------


def read_checkpoint(content: bytes) -> None:
    """As weights by name in both forms, and as trajectories."""
    readers: list[Callable[[], object]] = [
        lambda: read_state(str(written("weights.safetensors", content))),
        lambda: read_state(str(written("weights.pt", content))),
        lambda: read_buffer(str(written("replay_buffer_0.pt", content)), 0),
    ]
    for read in readers:
        try:
            read()
        except REFUSALS as error:
            sentence(error)


def checkpoints() -> list[bytes]:
    state = {"module.weight": FLOATS[0], "module.bias": SOFT[0]}
    return [saved({"state_dict": state}), saved([[list(state.values())] * 2]), safetensors(state)]


def read_labels(content: bytes) -> None:
    """An artifact: its manifest, a zero byte, its file. A first byte of 1 mends the manifest's sums."""
    mended, _, rest = content.partition(b":")
    manifest, _, logits = rest.partition(b"\0")
    if mended == b"1":
        sums = {"files": {FILE: [len(logits), f"{zlib.crc32(logits):08x}"]}, "meta": {}}
        manifest = json.dumps(sums).encode()
    written(f"store/logits/one/{FILE}", logits)
    written(f"store/logits/one/{MANIFEST}", manifest)
    artifact = LocalStore(scratch() / "store").find("logits", "one")
    if artifact is not None:
        read_logits(artifact.folder)


def label_artifacts() -> list[bytes]:
    write_logits(scratch(), SOFT.numpy())
    logits = (scratch() / FILE).read_bytes()
    sums = {"files": {FILE: [len(logits), f"{zlib.crc32(logits):08x}"]}, "meta": {"seconds": 1.0}}
    return [b"1:\0" + logits, b"0:" + json.dumps(sums).encode() + b"\0" + logits]


def read_artifact_files(content: bytes) -> None:
    """Arrays and weights of artifacts."""
    for name, read in (("a.npy", read_array), ("w.safetensors", read_weights)):
        try:
            read(written(name, content))
        except REFUSALS as error:
            sentence(error)


def artifact_files() -> list[bytes]:
    buffer = io.BytesIO()
    np.save(buffer, PIXELS[0])
    return [buffer.getvalue(), safetensors({"weight": FLOATS[0]})]


def read_fkd(content: bytes) -> None:
    read_batch(written("batch_0.tar", content))


def fkd_files() -> list[bytes]:
    crops = (torch.arange(24.0).view(6, 4) + 1) / 64
    plain = FkdBatch(crops, torch.zeros(6).bool(), SOFT.half())
    mixed = FkdBatch(crops, torch.ones(6).bool(), SOFT.half(), LABELS, 0.3, (1, 2, 5, 6))
    made = []
    for batch in (plain, mixed):
        write_batch(scratch() / "seed.tar", batch)
        made.append((scratch() / "seed.tar").read_bytes())
    numbers = [crops, [True] * 6, LABELS, np.float64(0.3), [np.int64(1)] * 4, SOFT.half()]
    return [*made, saved(numbers)]


# --- results ------------------------------------------------------------------------------------


def read_rows_of_others(content: bytes) -> None:
    """A ledger in a study's folder, and the results that `raydc sync --import` takes."""
    read_rows(written(f"study/{LEDGER}", content).parent)
    read_results(written("results.jsonl", content), "tiny")


def result_lines() -> list[bytes]:
    row = {"evaluation_id": "5d1c", "study": "tiny", "seed": 0, "status": "finished", "test_acc": 0.5}
    row |= {"started_at": 1.0, "finished_at": 2.0, "images.method": "random", "error": None}
    return [encode(row), (json.dumps(row) + "\n").encode()]


def sentence(error: Exception) -> None:
    """A refusal is one sentence of a length that somebody reads."""
    text = str(error)
    assert text, type(error)
    assert "\n" not in text, text
    assert len(text) < 1000, text[:1000]


def allowed(target: Target, content: bytes) -> bool:
    """Whether `content` is read; False if it is refused as it should be. Everything else is raised."""
    try:
        target.read(content)
    except REFUSALS as error:
        sentence(error)
        return False
    return True


TARGETS = {
    target.name: target
    for target in (
        Target("study", read_study, studies),
        Target("parquet", read_parquet, parquets),
        Target("image", read_image, images),
        Target("torch-set", read_torch_set, torch_sets),
        Target("torch-pickle", read_pickle, pickles),
        Target("hdf5-set", read_hdf5_set, hdf5_sets),
        Target("parquet-set", read_parquet_set, parquet_sets),
        Target("checkpoint", read_checkpoint, checkpoints),
        Target("labels", read_labels, label_artifacts),
        Target("artifact-files", read_artifact_files, artifact_files),
        Target("fkd", read_fkd, fkd_files),
        Target("results", read_rows_of_others, result_lines),
    )
}

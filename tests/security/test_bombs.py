"""Small files that unfold to more than the memory: refused before it is filled.

Each is read in a process of its own with little memory (tests.security.limited).
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.security import bombs

pytestmark = pytest.mark.command

HUGE = 10**11
"""Numbers that nobody has room for."""
Refused = Callable[[str, Path], str]


@pytest.fixture(scope="module")
def refused() -> Iterator[Refused]:
    """The sentence with which a process of little memory refuses a file."""
    reader = subprocess.Popen(
        [sys.executable, "-m", "tests.security.limited"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None

    def ask(kind: str, path: Path) -> str:
        reader.stdin.write(json.dumps([kind, str(path)]) + "\n")
        reader.stdin.flush()
        said = json.loads(reader.stdout.readline())
        assert said is not None, "it was read, or took more memory or time than it may"
        assert "\n" not in said
        return said

    yield ask
    reader.stdin.close()
    reader.wait()


def compressed(content: bytes) -> bytes:
    """An archive of torch.save with its entries deflated."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for name in archive.namelist():
            made.writestr(name, archive.read(name))
    return buffer.getvalue()


class Bytes:
    """Pickled, it is a bytearray of zeros that is made when it is read."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (HUGE,)


class Numbers:
    """Pickled, it is a tensor without any bytes in the file."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return torch.FloatTensor, (3 << 26,)


def shared(kind: type[list[object]] | type[tuple[object, ...]]) -> object:
    """Lists or tuples in their like that share parts: 8 ** 12 numbers once they are written out."""
    value = kind([0.0] * 8)
    for _ in range(11):
        value = kind([value] * 8)
    return value


def stretched() -> torch.Tensor:
    return torch.zeros(1).as_strided((HUGE // 192, 3, 8, 8), (0, 0, 0, 0))


LABELS = torch.zeros(4)
TENSORS: dict[str, Callable[[], bytes]] = {
    "compressed": lambda: compressed(bombs.saved({"images": torch.zeros(1 << 24), "labels": LABELS})),
    "bytearray": lambda: bombs.saved({"images": Bytes(), "labels": LABELS}),
    "bytearray of old": lambda: bombs.saved({"images": Bytes(), "labels": LABELS}, legacy=True),
    "numbers from nowhere": lambda: bombs.saved({"images": Numbers(), "labels": LABELS}),
    "stride 0": lambda: bombs.saved({"images": stretched(), "labels": LABELS}),
    "no numbers": lambda: bombs.saved({"images": torch.zeros(HUGE, device="meta"), "labels": LABELS}),
    "sparse": lambda: bombs.saved(
        {"images": torch.sparse_coo_tensor(torch.zeros(1, 1), torch.ones(1), (HUGE,)), "labels": LABELS}
    ),
    "shared lists": lambda: bombs.saved({"images": shared(list), "labels": LABELS}),
    "shared tuples": lambda: bombs.saved({"images": shared(tuple), "labels": LABELS}),
    "shared tuples as labels": lambda: bombs.saved(
        {"images": torch.zeros(4, 3, 8, 8), "labels": shared(tuple)}
    ),
    "storage of old": lambda: bombs.saved({"images": torch.zeros(7), "labels": LABELS}, legacy=True).replace(
        b"K\x07", b"J\xff\xff\xff\x7f", 1
    ),
}


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_tensors(make: Callable[[], bytes], refused: Refused, tmp_path: Path) -> None:
    content = make()
    assert len(content) < 1 << 20
    path = tmp_path / "set.pt"
    path.write_bytes(content)
    for reader in ("set", "state"):
        refused(reader, path)


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("place", range(6))
def test_labels_of_fkd_that_share_their_parts(
    kind: type[list[object]], place: int, refused: Refused, tmp_path: Path
) -> None:
    content: list[object] = [torch.ones(1, 4), [True], None, None, None, torch.zeros(1, 3)]
    content[place] = shared(kind)
    path = tmp_path / "batch_0.tar"
    path.write_bytes(bombs.saved(content))
    said = {3: "lambda is not a number", 4: "box does not have four"}.get(place, "nested lists")
    assert said in refused("fkd", path)


def test_safetensors_that_declare_more_than_they_hold(refused: Refused, tmp_path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}
    for number, (length, text) in enumerate([(None, json.dumps(header)), (1 << 62, "{}")]):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(struct.pack("<Q", length or len(text)) + text.encode())
        assert "neither safetensors" in refused("state", path)


def test_hdf5_that_declares_more_than_it_holds(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (HUGE // 192, 3, 8, 8), "f4", chunks=(1, 3, 8, 8))
        file["label"] = np.zeros(4)
    assert path.stat().st_size < 1 << 14
    assert "100 times the file" in refused("set", path)


def test_hdf5_with_a_chunk_that_is_larger_than_its_array(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        shape, chunk = (4, 3, 8, 8), (1 << 22, 3, 8, 8)
        file.create_dataset(
            "data", shape, "f4", maxshape=(None, *shape[1:]), chunks=chunk, compression="gzip"
        )
        file["label"] = np.zeros(4)
    assert "has chunks of 3,221,225,472 bytes" in refused("set", path)


def test_hdf5_that_reads_other_files(refused: Refused, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.zeros((4, 3, 8, 8), np.float32)
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(4 * 3 * 8 * 8))
    layout = h5py.VirtualLayout((4, 3, 8, 8), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "data", (4, 3, 8, 8))
    makers: list[tuple[str, Callable[[h5py.File], object]]] = [
        ("link", lambda file: file.__setitem__("data", h5py.ExternalLink(str(secret), "data"))),
        ("other files", lambda file: file.create_virtual_dataset("data", layout)),
        ("other files", lambda file: file.create_dataset("data", (4, 3, 8, 8), "u1", external=str(raw))),
    ]
    for said, make in makers:
        with h5py.File(tmp_path / "set.h5", "w") as file:
            make(file)
            file["label"] = np.zeros(4)
        assert said in refused("set", tmp_path / "set.h5")


def folder_of(content: bytes, folder: Path) -> Path:
    for split in ("train", "test"):
        (folder / split / "ant").mkdir(parents=True)
        (folder / split / "ant" / "0.png").write_bytes(content)
    return folder


def png(width: int, height: int, chunk: bytes = b"") -> bytes:
    """A PNG that declares a size; its pixels are not there."""

    def part(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + chunk + part(b"IDAT", b"") + part(b"IEND", b"")


def test_images_of_many_pixels(refused: Refused, tmp_path: Path) -> None:
    assert "exceeds limit" in refused("folder", folder_of(png(2**31 - 1, 2**31 - 1), tmp_path / "png"))
    jpeg = io.BytesIO()
    Image.new("L", (8, 8)).save(jpeg, "JPEG")
    large = jpeg.getvalue().replace(b"\0\x08\0\x08", struct.pack(">HH", 10_000, 10_000), 1)
    assert "at most 50,000,000" in refused("folder", folder_of(large, tmp_path / "jpeg"))


def test_a_line_that_becomes_a_plane_when_it_is_resized(refused: Refused, tmp_path: Path) -> None:
    line = io.BytesIO()
    Image.new("L", (40_000_000, 1)).save(line, "PNG")
    assert "200 times the other" in refused("folder", folder_of(line.getvalue(), tmp_path))


def test_many_images_that_unfold_together(refused: Refused, tmp_path: Path) -> None:
    one = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(one, "PNG")
    (tmp_path / "ant").mkdir()
    for number in range(40):
        (tmp_path / "ant" / f"{number}.png").write_bytes(one.getvalue())
    assert "more than 100 times their bytes" in refused("set", tmp_path)


def written(table: pa.Table, folder: Path, **options: object) -> Path:
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-0.parquet", **options)
    return folder


def test_parquet_with_one_image_many_times(refused: Refused, tmp_path: Path) -> None:
    """A dictionary of one large image, and a million rows that name it."""
    image = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), [b"\0" * (1 << 20)])
    table = pa.table(
        {"image": pa.StructArray.from_arrays([image], ["bytes"]), "label": np.zeros(100_000, int)}
    )
    path = written(table, tmp_path, row_group_size=100_000, compression="zstd")
    refused("parquet", path)


def test_parquet_whose_labels_are_one_long_text_many_times(refused: Refused, tmp_path: Path) -> None:
    """In the second file of a split: the first one names the columns."""
    images = pa.array([{"bytes": row.to_bytes(4, "big")} for row in range(4000)], bombs.IMAGE)
    table = pa.table({"image": images, "label": np.zeros(4000, int)})
    path = written(table, tmp_path)
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, np.int32)), ["x" * (1 << 20)])
    for split in ("train", "test"):
        spoilt = table.set_column(1, "label", text)
        pq.write_table(spoilt, path / f"{split}-1.parquet", compression="zstd")
    assert "but labels are whole numbers" in refused("parquet", path)


def test_parquet_with_more_rows_than_bytes(refused: Refused, tmp_path: Path) -> None:
    images = pa.array([None] * (1 << 22), bombs.IMAGE)
    table = pa.table({"image": images, "label": np.zeros(1 << 22, np.int64)})
    assert "rows, but has" in refused("parquet", written(table, tmp_path, compression="zstd"))


def test_yaml(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    for text in ("[" * (1 << 20), "a: " + "{a: " * 200_000, "- " * 400_000, "? " * 400_000):
        path.write_text(text)
        assert "nested too deeply" in refused("study", path)
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines))
    assert "200,000 values" in refused("study", path)
    assert "1,048,576 bytes" in refused("study", Path("/dev/zero"))


def test_json(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for text in ("[" * (1 << 22), '{"a":' * (1 << 20), "9" * (1 << 22), "[" * 200 + "]" * 200):
        path.write_text(text)
        assert "is not JSON" in refused("results", path)


def test_an_array_that_declares_more_than_it_holds(refused: Refused, tmp_path: Path) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({HUGE},), }}".ljust(117).encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header + b"\n")
    assert "is not an array" in refused("array", tmp_path / "a.npy")

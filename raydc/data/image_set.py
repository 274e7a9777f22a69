"""Compressed sets: small training sets made by a method, or imported."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from raydc.data.array_file import read_array
from raydc.data.parquet import read_column, read_schema
from raydc.data.source import decode_image, decode_images
from raydc.errors import ArtifactError, InputError
from raydc.files.plain_json import parse_json

SET, IMAGES = "set.parquet", "images.npy"
SPACES = ("pixel", "normalised", "zca")
"""Spaces of the values of a float set; uint8 sets are pixels."""


@dataclass(frozen=True)
class CompressedSet:
    """Images with labels, as stored and as used to train students."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """[N, C, H, W]; uint8 pixels, or float32 in `space`."""
    labels: NDArray[np.int64]
    """[N], class numbers."""
    images_bytes: int
    """Stored size in bytes: the encoded images with their headers; float sets as fp16."""
    space: str = "pixel"
    """pixel, normalised or zca."""
    sources: NDArray[np.int64] | None = None
    """[N, tiles], rows of the original train split that each image was made from; None if synthetic."""
    grid: tuple[int, int] = (1, 1)
    """Rows and columns of tiles in an image."""
    soft_labels: NDArray[np.float32] | None = None
    """[N, classes], probabilities that are part of the set, if any."""
    encoded: tuple[bytes, ...] | None = None
    """The encoded images, kept until the set is saved, because encoding a second time could lose quality
    again. None for float images and for a loaded set."""

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def from_pixels(
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        encoding: str = "png",
        *,
        sources: NDArray[np.int64] | None = None,
        grid: tuple[int, int] = (1, 1),
    ) -> CompressedSet:
        """Encode pixels [N, C, H, W]; with a lossy encoding, `images` are the decoded ones."""
        encoded = tuple(encode_image(image, encoding) for image in pixels)
        seen = pixels
        if encoding != "png" and len(encoded):
            seen = np.stack([_planes(decode_image(blob, "an encoded image")) for blob in encoded])
        return CompressedSet(
            images=seen,
            labels=labels,
            images_bytes=sum(map(len, encoded)),
            sources=sources,
            grid=grid,
            encoded=encoded,
        )

    def save(self, folder: Path, encoding: str, class_names: tuple[str, ...]) -> None:
        """Write the set as `set.parquet`, in the layout of public dataset hubs."""
        columns: dict[str, pa.Array] = {}
        if self.space == "pixel":
            suffix = encoding.partition("-")[0]
            encoded = self.encoded or [encode_image(image, encoding) for image in self.images]
            columns["image"] = pa.array(
                [{"bytes": blob, "path": f"{i:06d}.{suffix}"} for i, blob in enumerate(encoded)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            )
        else:
            np.save(folder / IMAGES, self.images.astype(np.float16))
        columns["label"] = pa.array(self.labels)
        if self.sources is not None:
            columns["source"] = pa.array(self.sources.tolist(), pa.list_(pa.int64()))
        if self.soft_labels is not None:
            columns["soft_label"] = pa.array(self.soft_labels.tolist(), pa.list_(pa.float32()))
        features = {
            "image": {"_type": "Image"},
            "label": {"names": list(class_names), "_type": "ClassLabel"},
        }
        properties = {
            "space": self.space,
            "grid": self.grid,
            "images_bytes": self.images_bytes,
        }
        table = pa.table(columns).replace_schema_metadata(
            {
                "huggingface": json.dumps({"info": {"features": features}}),
                "raydc": json.dumps(properties),
            }
        )
        pq.write_table(table, folder / SET)

    @staticmethod
    def count(folder: Path) -> int:
        """Number of images of the set in `folder`, without reading them."""
        return int(pq.read_metadata(folder / SET).num_rows)

    @staticmethod
    def labels_of(folder: Path) -> NDArray[np.int64]:
        """Classes [N] of the set in `folder`, without decoding its images."""
        return np.array(read_column(folder / SET, "label").to_numpy(), np.int64)

    @staticmethod
    def load(folder: Path) -> CompressedSet:
        """The set in `folder`; raises `ArtifactError` if it is not a set, `InputError` if it is damaged."""
        file = folder / SET
        schema = read_schema(file)
        images: NDArray[np.uint8] | NDArray[np.float32]
        try:
            properties = parse_json(schema.metadata[b"raydc"])
            space, (rows, columns) = str(properties["space"]), properties["grid"]
            if space == "pixel":
                items = enumerate(read_column(file, "image").to_pylist())
                decoded = decode_images((item["bytes"], f"{file}: row {row}") for row, item in items)
                images = np.stack([_planes(image) for image in decoded])
            else:
                images = read_array(folder / IMAGES).astype(np.float32)

            labels = CompressedSet.labels_of(folder)
            if len(images) != len(labels):
                raise ValueError(f"{len(images)} images, but {len(labels)} labels")

            def column(name: str, kind: type) -> NDArray[np.generic] | None:
                present = name in schema.names
                return np.asarray(read_column(file, name).to_pylist(), kind) if present else None

            return CompressedSet(
                images=images,
                labels=labels,
                images_bytes=int(properties["images_bytes"]),
                space=space,
                sources=column("source", np.int64),  # type: ignore[arg-type]
                grid=(int(rows), int(columns)),
                soft_labels=column("soft_label", np.float32),  # type: ignore[arg-type]
            )
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{file} is not a compressed set ({error!r})") from None


def encode_image(image: NDArray[np.uint8], encoding: str) -> bytes:
    """[C, H, W] uint8 with 1 or 3 channels as PNG or JPEG bytes."""
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    kind, _, quality = encoding.partition("-")
    if kind == "png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    return buffer.getvalue()


def _planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3] -> [C, H, W]."""
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

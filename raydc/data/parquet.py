"""Datasets in the Parquet layout of public hubs.

A folder holds one or more files per split (`train-00000-of-00002.parquet`, also below `data/`). A row has an
image struct of `bytes` and `path` and an integer label; class names are in the schema's `huggingface`
metadata.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydc.data.limits import MOST_TIMES_THE_FILE, most_bytes
from raydc.data.source import TEST_NAMES, Source, decode_image, stamp_of
from raydc.errors import InputError, one_of
from raydc.files.plain_json import parse_json

GROUPS_HELD = 4
MOST_UNNAMED = 100_000
"""Largest number of classes without names, because a single label of four billion would define as many."""
ROWS_AT_A_TIME = 64
"""Rows of a column that are decompressed between two checks of its size."""
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")


class ParquetSplit:
    """Rows of Parquet files with encoded images, read one row group at a time."""

    def __init__(self, files: list[Path], columns: tuple[str, str]) -> None:
        image, label = columns
        self._image = image
        self._places: list[tuple[Path, int, int]] = []
        """(file, row group, its first row in the file) for each row group."""
        self._recent: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = Lock()
        labels = []
        lengths = [0]
        for file in files:
            layout = _layout(file)
            for field in read_schema(file):
                if field.name == label and not pa.types.is_integer(field.type):
                    raise InputError(
                        f"{file}: its column {label!r} holds {field.type}, but labels are whole numbers; "
                        "number the classes from 0"
                    )
            # Labels are read at once: `_layout` limits the number of rows to the size of the file.
            numbers = read_column(file, label, at_a_time=layout.num_rows)
            try:
                labels.append(numbers.cast(pa.int64()).fill_null(-1).to_numpy())
            except pa.ArrowException as error:
                raise InputError(f"{file}: {_reason(error)}") from None
            row = 0
            for group in range(layout.num_row_groups):
                self._places.append((file, group, row))
                lengths.append(layout.row_group(group).num_rows)
                row += lengths[-1]
        self._starts = np.cumsum(lengths)
        self._labels: NDArray[np.int64] = np.concatenate(labels).astype(np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        return self._labels

    def encoded(self, index: int) -> tuple[bytes, str]:
        """The bytes of image `index`, and its file and row for messages."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        inside = index - int(self._starts[number])
        file, _, first = self._places[number]
        try:
            content = self._group(number)[inside].as_py()
        except UnicodeDecodeError:
            raise InputError(
                f"{file}: row {first + inside}: the image's path is not UTF-8; copy the file again"
            ) from None
        fields = content if isinstance(content, dict) else {}
        path = fields.get("path")
        where = f"{file}: row {first + inside}" + (f" ({path})" if path else "")
        encoded = fields.get("bytes")
        if not isinstance(encoded, bytes):
            raise InputError(f"{where}: the image has no bytes; store them in the file")
        return encoded, where

    def _group(self, number: int) -> pa.ChunkedArray:
        """The images of a row group; the last few groups are cached, since images are read in order."""
        with self._lock:
            if number not in self._recent:
                file, group, _ = self._places[number]
                self._recent[number] = read_column(file, self._image, group)
                while len(self._recent) > GROUPS_HELD:
                    self._recent.popitem(last=False)
            return self._recent[number]

    def image(self, index: int) -> NDArray[np.uint8]:
        return decode_image(*self.encoded(index))


def _layout(file: Path) -> pq.FileMetaData:
    """The metadata of a file; raises `InputError` if it declares more rows than it has bytes."""
    try:
        layout = pq.read_metadata(file)
        groups = [layout.row_group(group).num_rows for group in range(layout.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: {_reason(error)}") from None
    size = file.stat().st_size
    if min(groups, default=0) < 0 or sum(groups) != layout.num_rows or layout.num_rows > size:
        rows = f"{layout.num_rows:,}"
        raise InputError(f"{file}: it declares {rows} rows, but has {size:,} bytes; copy the file again")
    return layout


def read_column(
    file: Path, name: str, group: int | None = None, at_a_time: int = ROWS_AT_A_TIME
) -> pa.ChunkedArray:
    """A column of a Parquet file, or of one of its row groups.

    Raises `InputError` if it does not exist, is damaged, or exceeds the limit of `raydc.data.limits`.
    """
    layout = _layout(file)
    groups = range(layout.num_row_groups) if group is None else [group]
    rows = sum(layout.row_group(number).num_rows for number in groups)
    pieces, size = [], 0
    try:
        opened = pq.ParquetFile(file)
        if name not in opened.schema_arrow.names:
            raise InputError(f"{file}: it has no column {name!r}, unlike other files of the split; add it")
        kind = opened.schema_arrow.field(name).type
        for batch in opened.iter_batches(max(1, at_a_time), row_groups=list(groups), columns=[name]):
            size += batch.nbytes
            if size > most_bytes(file):
                raise InputError(
                    f"{file}: its column {name!r} is larger than {MOST_TIMES_THE_FILE} times the file; "
                    "write it without repeated values"
                )
            pieces.append(batch.column(0))
        column = pa.chunked_array(pieces, kind)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: {_reason(error)}") from None
    if len(column) != rows:
        raise InputError(f"{file}: its column {name!r} has {len(column)} of {rows} rows; copy the file again")
    return column


def split_of(file: Path) -> str | None:
    """The split in a file's name, if any."""
    match = re.match(r"(train|test|validation|valid|val)(?=[-_.]|$)", file.name)
    return match[1] if match else None


def parquet(location: str, key: str = "dataset.parquet") -> Source:
    """The dataset in the folder `location`; messages attribute it to `key`."""
    folder = Path(location)
    if not folder.is_dir():
        raise InputError(
            f"{key} is {location!r}, but there is no such folder; give the folder that holds "
            "train-*.parquet and test-*.parquet"
        )
    by_split: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        if (name := split_of(file)) is not None:
            by_split.setdefault(name, []).append(file)
    test_names = [name for name in TEST_NAMES if name in by_split]
    if "train" not in by_split or not test_names:
        found = one_of(sorted(by_split)) or "none"
        raise InputError(
            f"{key} is {location!r}, which has files of the splits {found}; there must be "
            f"train-*.parquet and one of {one_of(f'{name}-*.parquet' for name in TEST_NAMES)}"
        )
    schema = read_schema(by_split["train"][0])
    columns = image_and_label(schema, by_split["train"][0])
    train = ParquetSplit(by_split["train"], columns)
    for name in test_names:
        files = by_split[name]
        image_and_label(read_schema(files[0]), files[0])
        test = ParquetSplit(files, columns)
        if (test.labels >= 0).all():
            break
    else:
        raise InputError(f"{key} is {location!r}, whose test split has no labels; add them")
    names = class_names_of(schema, columns[1])
    if names is None:
        highest = int(train.labels.max(initial=-1))
        if highest >= MOST_UNNAMED:
            raise InputError(
                f"{key} is {location!r}, whose largest label is {highest:,}, but at most {MOST_UNNAMED:,} "
                "classes without names are allowed; number them from 0"
            )
        names = tuple(str(number) for number in range(highest + 1))
    files = [*by_split["train"], *by_split[name]]
    return Source(folder.name, names, train, test, stamp_of("parquet", files, folder))


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0].split(". ")[0]
    return f"it is not a complete Parquet file ({text[:160]}); copy the file again"


def read_schema(file: Path) -> pa.Schema:
    """Columns and metadata of a Parquet file; raises `InputError` if it is not one."""
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file}: {_reason(error)}") from None


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        content = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}  # third-party files need not describe their columns
    return features if isinstance(features, dict) else {}


def image_and_label(schema: pa.Schema, file: Path) -> tuple[str, str]:
    """Names of the image column and of the label column."""
    images = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and any(part.name == "bytes" and pa.types.is_binary(part.type) for part in field.type)
    ]
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    labels = [name for name in LABEL_COLUMNS if name in whole] or whole
    if len(images) != 1 or not labels or (len(labels) > 1 and labels[0] not in LABEL_COLUMNS):
        raise InputError(
            f"{file}: it has the columns {one_of(schema.names)}, but there must be one image column (a "
            f"struct with bytes) and a label column of whole numbers, such as {LABEL_COLUMNS[0]}"
        )
    return images[0], labels[0]


def class_names_of(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Class names from the schema's metadata, in the order of their numbers; None if there are none."""
    feature = _features(schema).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None

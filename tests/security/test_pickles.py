"""A malicious pickle in each place that reads a file: refused in one sentence, and not executed."""

from __future__ import annotations

import io
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pytest
import torch

from raydc.data.builtin import cifar10, cifar100
from raydc.data.dataset import dataset_from
from raydc.data.hub import FILES
from raydc.data.image_folder import folder as folder_source
from raydc.data.image_set import CompressedSet
from raydc.data.imported import read_set
from raydc.data.parquet import parquet
from raydc.data.source import Source
from raydc.data.whitening import Whitening
from raydc.errors import ArtifactError, InputError, TrackingError
from raydc.labels.fkd import read_batch
from raydc.labels.logits_file import FILE, read_logits
from raydc.search import history
from raydc.search.cma_state import STATE
from raydc.search.points import Points
from raydc.spec.search import SearchSpec
from raydc.spec.study import load_study, parse_study
from raydc.store.artifact import MANIFEST, get
from raydc.store.local import LocalStore
from raydc.study.sync import read_results
from raydc.teachers.checkpoint import read_buffer, read_state
from raydc.tracking import study_folder
from raydc.tracking.ledger import read_rows
from raydc.tracking.mlflow_params import value_of
from raydc.tracking.mlflow_record import read_experiment
from raydc.tracking.run_ids import run_ids
from raydc.worker import exported
from tests.conftest import DIGITS
from tests.security import bombs
from tests.shell import STUDY

NAMES = ("ant", "bee", "cat")
Reader = Callable[[Path, Path], object]
"""Takes a folder of its own and the canary's path; puts a bomb there and reads it."""


def test_the_bomb_is_one(tmp_path: Path) -> None:
    """Else nothing here would prove anything."""
    for number, load in enumerate([pickle.loads, lambda b: torch.load(io.BytesIO(b), weights_only=False)]):
        mark = tmp_path / str(number)
        load(bombs.pickled(mark) if number == 0 else bombs.saved(bombs.Bomb(mark)))
        assert mark.is_dir()


def file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- studies and datasets -------------------------------------------------------------------------


def study_tag(folder: Path, canary: Path) -> object:
    text = STUDY.replace("seeds: 2", f"seeds: !!python/object/apply:os.mkdir ['{canary}']")
    return load_study(file(folder / "s.yaml", text.encode()))


def study_pickle(folder: Path, canary: Path) -> object:
    return load_study(file(folder / "s.yaml", bombs.pickled(canary)))


def setting(folder: Path, canary: Path) -> object:
    return parse_study(STUDY, "s.yaml", settings=[f"seeds=!!python/object/apply:os.mkdir ['{canary}']"])


def first_image(source: Source) -> object:
    return source.train.image(0)


def image_folder(folder: Path, canary: Path) -> object:
    for split in ("train", "test"):
        file(folder / split / "ant" / "0.png", bombs.pickled(canary))
    return first_image(folder_source(str(folder)))


def in_parquet(content: bytes, folder: Path) -> object:
    for split in ("train", "test"):
        file(folder / f"{split}-0.parquet", content)
    return first_image(parquet(str(folder)))


def parquet_file(folder: Path, canary: Path) -> object:
    return in_parquet(bombs.pickled(canary), folder)


def parquet_image(folder: Path, canary: Path) -> object:
    return in_parquet(bombs.parquet(bombs.pickled(canary)), folder)


def parquet_type(folder: Path, canary: Path) -> object:
    return in_parquet(bombs.parquet(b"no image", bombs.extension(canary, bombs.IMAGE)), folder)


def cifar(read: Callable[[str, bool], Source], sub: str, names: list[str]) -> Reader:
    def changed(folder: Path, canary: Path) -> object:
        for name in names:
            file(folder / sub / name, bombs.pickled(canary))
        return first_image(read(str(folder), False))

    return changed


# --- sets of others -------------------------------------------------------------------------------


def as_set(name: str, make: Callable[[Path], bytes]) -> Reader:
    def of_file(folder: Path, canary: Path) -> object:
        return read_set(str(file(folder / name, make(canary))), NAMES)

    return of_file


def labels_beside(folder: Path, canary: Path) -> object:
    file(folder / "labels_best.pt", bombs.pickled(canary))
    return read_set(str(file(folder / "images_best.pt", bombs.saved(torch.zeros(1, 3, 8, 8)))), NAMES)


def own_set(folder: Path, canary: Path) -> object:
    numbers = np.zeros((1, 3, 8, 8), np.float32)
    CompressedSet(numbers, np.zeros(1, np.int64), 0, space="normalised").save(folder, "png", NAMES)
    file(folder / "images.npy", bombs.array(canary))
    return read_set(str(folder), NAMES)


# --- checkpoints and labels -----------------------------------------------------------------------


def checkpoint(name: str, legacy: bool = False) -> Reader:
    def state(folder: Path, canary: Path) -> object:
        content = bombs.saved({"state_dict": {"w": bombs.Bomb(canary)}}, legacy)
        return read_state(str(file(folder / name, content)))

    return state


def trajectory(folder: Path, canary: Path) -> object:
    return read_buffer(
        str(file(folder / "replay_buffer_0.pt", bombs.saved([[[bombs.Bomb(canary)]]])).parent), 0
    )


def fkd(folder: Path, canary: Path) -> object:
    content: list[Any] = [torch.zeros(1, 4), [True], None, bombs.Bomb(canary), None, torch.zeros(1, 3)]
    return read_batch(file(folder / "batch_0.tar", bombs.saved(content)))


# --- results and plans ----------------------------------------------------------------------------


def imported_results(folder: Path, canary: Path) -> object:
    return read_results(file(folder / "results.jsonl", bombs.pickled(canary)), "tiny")


def exported_plan(folder: Path, canary: Path) -> object:
    return exported.run_file(file(folder / "p.jsonl", bombs.pickled(canary)), None, folder, None, "cpu")


def earlier_results(folder: Path, canary: Path) -> object:
    return list(exported._results(file(folder / "results.jsonl", bombs.pickled(canary))))


def plan_numbers(at: Path, canary: Path) -> object:
    return study_folder.planned(file(at / study_folder.PLAN, bombs.pickled(canary)).parent)


def search_history(folder: Path, canary: Path) -> object:
    return history.read_history(file(folder / history.HISTORY, bombs.pickled(canary)).parent)


def search_storage(folder: Path, canary: Path) -> object:
    return points_in(file(folder / "search.db", bombs.pickled(canary)))


def points_in(path: Path) -> Points:
    study = parse_study(
        "name: s\ndataset: digits\nbase: {images.ipc: 1, labels.kind: hard, student.arch: convnet-d2-w8}\n"
        "search: {optuna: {trials: 9, sampler: cmaes, space: {train.lr: {uniform: [0.01, 1]}, "
        "train.steps: {int: [1, 9]}}}}\n",
        "s.yaml",
    )
    assert isinstance(study.search, SearchSpec)
    return Points(path, "s", study.search, "digest")


def search_state(folder: Path, canary: Path) -> object:
    """The state of CMA-ES, which Optuna would open when it asks for the next point."""
    points = points_in(folder / "search.db")
    trial = points.ask()
    storage, content = points._study._storage, bombs.pickled(canary).hex()
    storage.set_trial_system_attr(trial._trial_id, f"{STATE}0", content)
    points.values(trial)
    points.tell(trial, [0.5])
    return points_in(folder / "search.db")


def mlflow_database(folder: Path, canary: Path) -> object:
    return read_experiment("tiny", f"sqlite:///{file(folder / 'mlflow.db', bombs.pickled(canary))}")


# --- the store --------------------------------------------------------------------------------------


def stored(folder: Path, kind: str, files: dict[str, bytes], **meta: Any) -> LocalStore:
    """A store with one artifact, whose sums are right."""
    sums = {name: [len(content), f"{zlib.crc32(content):08x}"] for name, content in files.items()}
    file(folder / kind / "one" / MANIFEST, json.dumps({"files": sums, "meta": meta}).encode())
    for name, content in files.items():
        file(folder / kind / "one" / name, content)
    return LocalStore(folder)


def manifest(folder: Path, canary: Path) -> object:
    file(folder / "logits" / "one" / MANIFEST, bombs.pickled(canary))
    return get(LocalStore(folder), "logits", "one")


def logits(folder: Path, canary: Path) -> object:
    return read_logits(get(stored(folder, "logits", {FILE: bombs.pickled(canary)}), "logits", "one").folder)


def logits_type(folder: Path, canary: Path) -> object:
    schema = bombs.extension(canary, pa.binary())
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array([b"x"]), pa.array([1])], schema=schema))
    return read_logits(get(stored(folder, "logits", {FILE: buffer.getvalue()}), "logits", "one").folder)


def pixels(folder: Path, canary: Path) -> object:
    files = {f"{split}_labels.npy": bombs.array(canary) for split in ("train", "test")}
    files |= {f"{split}.npy": bombs.array(canary) for split in ("train", "test")}
    store = stored(folder, "pixels", files, fingerprint="f", class_names=["0"])
    return dataset_from(DIGITS, get(store, "pixels", "one"), store)


def whitening(folder: Path, canary: Path) -> object:
    files = dict.fromkeys(("mean.npy", "matrix.npy"), bombs.array(canary))
    return Whitening.load(get(stored(folder, "whitening", files), "whitening", "one").folder)


READERS: dict[str, Reader] = {
    "study with a tag": study_tag,
    "study that is a pickle": study_pickle,
    "--set with a tag": setting,
    "image in a folder": image_folder,
    "Parquet file": parquet_file,
    "image in Parquet": parquet_image,
    "extension type in Parquet": parquet_type,
    "CIFAR-10 by name": cifar(
        cifar10,
        "cifar-10-batches-py",
        [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"],
    ),
    "CIFAR-100 by name": cifar(cifar100, "cifar-100-python", ["train", "test", "meta"]),
    "set: plain pickle as .pt": as_set("set.pt", bombs.pickled),
    "set: newest pickle as .pth": as_set("set.pth", lambda canary: bombs.pickled(canary, 5)),
    "set: .pt archive": as_set("set.pt", lambda c: bombs.saved({"images": bombs.Bomb(c), "labels": [0]})),
    "set: .pt of old": as_set("set.pt", lambda canary: bombs.saved({"images": bombs.Bomb(canary)}, True)),
    "set: labels beside": labels_beside,
    "set: .h5 that is a pickle": as_set("set.h5", bombs.pickled),
    "set: pickle in .h5": as_set("set.h5", lambda canary: bombs.hdf5(bombs.pickled(canary))),
    "set: numbers of our own": own_set,
    "checkpoint .pt": checkpoint("w.pt"),
    "checkpoint of old": checkpoint("w.pth", legacy=True),
    "checkpoint named safetensors": checkpoint("w.safetensors"),
    "trajectories": trajectory,
    "FKD labels": fkd,
    "raydc sync --import": imported_results,
    "exported plan": exported_plan,
    "results of an exported plan": earlier_results,
    "plan.json": plan_numbers,
    "search.json": search_history,
    "search.db": search_storage,
    "CMA-ES in search.db": search_state,
    "mlflow.db": mlflow_database,
    "manifest": manifest,
    "logits": logits,
    "extension type in logits": logits_type,
    "pixels": pixels,
    "whitening": whitening,
}


MARKS = {mlflow_database: [pytest.mark.mlflow]}


@pytest.mark.parametrize(
    "reader", [pytest.param(reader, id=name, marks=MARKS.get(reader, [])) for name, reader in READERS.items()]
)
def test_a_pickle_is_refused_and_not_executed(reader: Reader, tmp_path: Path, canary: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises((InputError, ArtifactError, TrackingError)) as error:
        reader(place, canary)
    said = str(error.value)
    assert said
    assert "\n" not in said
    assert "weights_only" not in said, "advice to read it unprotected"


def test_lines_that_are_pickles_are_passed_over(tmp_path: Path, canary: Path) -> None:
    """The ledger, MLflow's ids and the store's results skip what is damaged, with a warning."""
    line = bombs.pickled(canary, 0).replace(b"\n", b" ") + b"\n"
    for name in ("ledger.jsonl", "tracked.jsonl", "results/digits/0.jsonl"):
        file(tmp_path / name, line)
    assert read_rows(tmp_path) == {}
    assert run_ids(tmp_path) == {}
    assert list(LocalStore(tmp_path).results("digits")) == []


def test_values_of_mlflow_stay_texts(canary: Path) -> None:
    text = bombs.pickled(canary, 0).decode()
    assert value_of(text) == text


@pytest.mark.parametrize(
    "setting",
    [
        "base.images.method=os:mkdir",
        "base.labels.kind=os:mkdir",
        "base.train.recipe=os:mkdir",
        "dataset=os:mkdir",
        "plugin=evil.py",
    ],
)
def test_a_study_names_nothing_but_what_is_registered(setting: str) -> None:
    """What is imported for a name stands in the catalogue, never in a study."""
    with pytest.raises(InputError):
        parse_study(STUDY, "s.yaml", settings=[setting])


def test_the_hub_gives_data_alone(tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but images and Parquet is fetched, and a Parquet that is a pickle is refused."""
    asked: dict[str, Any] = {}

    def fetched(name: str, **options: Any) -> str:
        asked.update(options)
        for split in ("train", "test"):
            file(tmp_path / "snapshot" / f"{split}-0.parquet", bombs.pickled(canary))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    for call in (
        lambda: read_set("hub:somebody/set", NAMES),
        lambda: parquet(str(tmp_path / "snapshot")),
    ):
        with pytest.raises(InputError):
            call()
    assert asked["allow_patterns"] == list(FILES)
    assert not any(name.endswith((".py", ".pt", ".pkl", ".npy", ".h5")) for name in FILES)


def test_commands_refuse_bombs(refused: Callable[..., str], tmp_path: Path, canary: Path) -> None:
    """One sentence and exit code 2, before any work."""
    file(tmp_path / "set.pt", bombs.saved({"images": bombs.Bomb(canary), "labels": [0]}))
    keys = "base.images={method: imported, path: set.pt, ipc: 1}"
    said = refused("run", "tiny.yaml", "--set", keys, "--set", "grid.images.ipc=[1]")
    assert "posix.mkdir" in said
    file(tmp_path / "w.pt", bombs.saved({"w": bombs.Bomb(canary)}))
    lines = STUDY.replace("  labels.teacher_epoch: [1, 3]\n", "").splitlines()
    given = [
        "teacher: {arch: convnet-d2-w8, checkpoint: w.pt}" if "teacher" in line else line for line in lines
    ]
    file(tmp_path / "given.yaml", "\n".join(given).encode())
    assert "posix.mkdir" in refused("run", "given.yaml")
    assert "os.mkdir" in refused("run", "tiny.yaml", "--set", "base.student.arch=torchvision/os.mkdir")
    file(tmp_path / "tagged.yaml", STUDY.replace("seeds: 2", "seeds: !!python/name:os.mkdir").encode())
    assert "tag" in refused("run", "tagged.yaml")
    file(tmp_path / "out" / "study.yaml", STUDY.encode())
    file(tmp_path / "results.jsonl", bombs.pickled(canary))
    assert "cannot be read" in refused("sync", "out", "--import", "results.jsonl")


def test_an_exported_plan_refuses_bombs(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = file(tmp_path / "plan.jsonl", bombs.pickled(canary))
    assert exported.main([str(plan), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")

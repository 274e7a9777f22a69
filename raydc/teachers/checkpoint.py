"""Checkpoints: the stored states of trajectories, and networks that were trained elsewhere.

Third-party files are read without executing code: safetensors, or torch.load with weights_only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raydc.data.array_file import read_array, read_weights
from raydc.data.dataset import Dataset
from raydc.data.torch_file import read_tensors
from raydc.errors import InputError, one_of
from raydc.files.full_disk import add_to_hash
from raydc.networks import zoo
from raydc.spec.evaluation import TeacherSpec
from raydc.spec.plan import TrajectoryJob
from raydc.store.artifact import Store, get
from raydc.teachers.expert import checkpoint_name
from raydc.teachers.teacher import Teacher
from raydc.training.inputs import pixel_inputs
from raydc.training.metrics import measure

GIVEN = "given"
"""Stands for the epoch of a network that was trained elsewhere."""


def name_of(trajectory: str, epoch: int | None) -> str:
    """Name of a checkpoint; a network that was trained elsewhere has no epoch."""
    return f"{trajectory}-{GIVEN}" if epoch is None else checkpoint_name(trajectory, epoch)


def buffer_files(path: str) -> list[Path]:
    """Files of a buffer in numerical order, or the single file that `path` names."""
    root = Path(path)
    if not root.is_dir():
        return [root]
    numbered = [(re.fullmatch(r"replay_buffer_(\d+)\.pt", file.name), file) for file in root.iterdir()]
    found = [file for _, file in sorted((int(match[1]), file) for match, file in numbered if match)]
    if not found:
        raise InputError(f"teacher.checkpoint is {path!r}, a folder without replay_buffer_N.pt files")
    return found


def file_digest(path: str) -> str:
    """SHA-256 of a checkpoint file or of all files of a buffer; `InputError` if one cannot be read."""
    text = hashlib.sha256()
    try:
        for part in buffer_files(path):
            add_to_hash(text, part)
    except OSError as error:
        raise InputError(
            f"teacher.checkpoint is {path!r}, which cannot be read: {error.strerror}; give a file"
        ) from None
    return text.hexdigest()


def read_buffer(path: str, index: int) -> list[list[Tensor]]:
    """Trajectory `index` of a buffer: the parameters of each epoch from 0, in the network's order.

    MTT's layout (GeorgeCazenavette/mtt-distillation: buffer.py): a file contains a list of trajectories.
    """
    before = 0
    for file in buffer_files(path):
        try:
            trajectories = read_tensors(file, mapped=True)
        except ValueError as error:
            raise InputError(
                f"teacher.checkpoint is {path!r}, where {file.name} is not a file of tensors ({error})"
            ) from None
        if not isinstance(trajectories, list) or not all(isinstance(t, list) for t in trajectories):
            raise InputError(f"teacher.checkpoint is {path!r}, where {file.name} contains no trajectories")
        if index < before + len(trajectories):
            return trajectories[index - before]
        before += len(trajectories)
    raise InputError(
        f"teacher.checkpoint is {path!r}, which contains {before} trajectories, but teacher.count "
        f"needs {index + 1}"
    )


def _from_buffer(teacher: TeacherSpec, dataset: Dataset, index: int, epoch: int) -> nn.Module:
    """The network of one epoch of a buffer's trajectory; `InputError` if it does not match the teacher."""
    path = str(teacher.checkpoint)
    trajectory = read_buffer(path, index)
    if epoch >= len(trajectory):
        raise InputError(
            f"labels.teacher_epoch is {epoch}, but the trajectories of {path!r} end at epoch "
            f"{len(trajectory) - 1}; choose at most that"
        )
    network = zoo.build(teacher.arch, dataset.channels, dataset.classes, dataset.resolution)
    own, stored = list(network.parameters()), trajectory[epoch]
    fits = isinstance(stored, list) and [getattr(p, "shape", None) for p in stored] == [p.shape for p in own]
    if not fits or any(True for _ in network.buffers()):
        raise InputError(
            f"teacher.checkpoint is {path!r}, whose parameters are not those of {teacher.arch} for "
            f"{dataset.classes} classes"
        )
    with torch.no_grad():
        for mine, theirs in zip(own, stored, strict=True):
            mine.copy_(theirs)
    return network


def read_state(path: str) -> dict[str, Tensor]:
    """Weights by name from a safetensors file or a state dict; `InputError` for anything else."""
    try:
        content = load_file(path) if path.endswith(".safetensors") else read_tensors(Path(path))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise InputError(
            f"teacher.checkpoint is {path!r}, which is neither safetensors nor a plain state dict ({reason})"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"teacher.checkpoint is {path!r}, which is not a state dict; save weights by name")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


@dataclass(frozen=True)
class Given:
    """A network that was trained elsewhere."""

    network: nn.Module
    mean: Sequence[float] | None = None
    """Mean of each channel of its inputs; None if it takes the dataset's own inputs."""
    std: Sequence[float] | None = None
    """Standard deviation of each channel; None if it takes the dataset's own inputs."""


def load_given(teacher: TeacherSpec, dataset: Dataset, index: int = 0, epoch: int | None = None) -> Given:
    """The network of a `checkpoint` or `weights` teacher; `InputError` if it does not match the teacher.

    `index` and `epoch` select one of a buffer's networks.
    """
    if teacher.weights is not None:
        return _published(teacher, dataset)
    assert teacher.checkpoint is not None
    if teacher.is_buffer:
        assert epoch is not None
        return Given(_from_buffer(teacher, dataset, index, epoch))
    network = zoo.build(teacher.arch, dataset.channels, dataset.classes, dataset.resolution)
    try:
        network.load_state_dict(read_state(teacher.checkpoint))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).split("\n")[1:2]]
        raise InputError(
            f"teacher.checkpoint is {teacher.checkpoint!r}, whose weights are not those of "
            f"{teacher.arch} for {dataset.classes} classes: {' '.join(lines)}"
        ) from None
    return Given(network)


def _published(teacher: TeacherSpec, dataset: Dataset) -> Given:
    library, _, name = teacher.arch.partition("/")
    tag = str(teacher.weights)
    if library == "torchvision":
        from torchvision import models

        chosen = _torchvision_weights(name, tag)
        network = models.get_model(name, weights=chosen)
        transforms = chosen.transforms()
        mean, std = transforms.mean, transforms.std
    else:
        assert library == "timm", library
        import timm

        network = timm.create_model(f"{name}.{tag}", pretrained=True)
        config = timm.data.resolve_model_data_config(network)
        mean, std = config["mean"], config["std"]
    _check_classes(tag, zoo.classifier_of(network).out_features, dataset)
    return Given(network, list(mean), list(std))


def check_given(teacher: TeacherSpec, dataset: Dataset, epochs: Iterable[int] = ()) -> None:
    """Raise `InputError` if a teacher that is not trained here cannot be used, without downloading anything.

    epochs: the epochs requested from a buffer.
    """
    if teacher.is_buffer:
        for index in range(teacher.count):
            load_given(teacher, dataset, index, max(epochs, default=0))
        return
    if teacher.checkpoint is not None:
        load_given(teacher, dataset)
        return
    library, _, name = teacher.arch.partition("/")
    tag = str(teacher.weights)
    if library == "torchvision":
        classes = len(_torchvision_weights(name, tag).meta["categories"])
        _check_classes(tag, classes, dataset)
    elif library == "timm":
        import timm

        known = timm.list_pretrained(f"{name}.*")
        if f"{name}.{tag}" not in known:
            tags = [entry.partition(".")[2] for entry in known]
            raise InputError(
                f"teacher.weights is {tag!r}, which timm/{name} does not have; available: "
                f"{one_of(tags) or 'none'}"
            )
        config = timm.models.get_pretrained_cfg(f"{name}.{tag}")
        if config.fixed_input_size and config.input_size[-1] != dataset.resolution:
            raise InputError(
                f"teacher.weights is {tag!r}, whose network takes images of "
                f"{config.input_size[-1]} x {config.input_size[-1]} pixels, but the data have "
                f"{dataset.resolution} x {dataset.resolution}; set dataset.resolution or choose other weights"
            )
        _check_classes(tag, config.num_classes, dataset)
    else:
        raise InputError(f"teacher.weights needs an arch timm/NAME or torchvision/NAME, not {teacher.arch}")


def _torchvision_weights(name: str, tag: str) -> Any:
    from torchvision import models

    try:
        return models.get_model_weights(name)[tag]
    except (KeyError, ValueError):
        raise InputError(
            f"teacher.weights is {tag!r}, which torchvision/{name} does not have; see "
            "torchvision.models.get_model_weights"
        ) from None


def _check_classes(tag: str, classes: int, dataset: Dataset) -> None:
    if classes != dataset.classes:
        raise InputError(
            f"teacher.weights is {tag!r}, whose network has {classes} classes, but the data have "
            f"{dataset.classes}; choose weights for these classes"
        )


def not_stored(job: TrajectoryJob, store: Store) -> list[int | None]:
    """Epochs of a trajectory trained elsewhere that are not in the store; None is its only state."""
    asked: Sequence[int | None] = job.epochs if job.teacher.is_buffer else (None,)
    return [epoch for epoch in asked if not store.is_intact("checkpoint", name_of(job.id, epoch))]


def store_given(job: TrajectoryJob, dataset: Dataset, store: Store, device: torch.device) -> None:
    """Copy networks that were trained elsewhere into the store, so that every worker can read them."""
    for epoch in not_stored(job, store):
        _store_one(job, epoch, dataset, store, device)


def _store_one(
    job: TrajectoryJob, epoch: int | None, dataset: Dataset, store: Store, device: torch.device
) -> None:
    given = load_given(job.teacher, dataset, job.index, epoch)
    inputs = _inputs(dataset, given.mean, given.std)
    labels = torch.from_numpy(dataset.test.labels).to(device)
    network = given.network.to(device)
    score = measure(network, pixel_inputs(dataset.test, inputs, device), labels, dataset.classes)
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with store.draft("checkpoint") as draft:
        save_file(weights, draft.path("weights.safetensors"))
        draft.commit(
            name_of(job.id, epoch),
            arch=job.teacher.arch,
            mean=given.mean,
            std=given.std,
            test_acc=score.accuracy,
        )


def _inputs(
    dataset: Dataset, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Callable[[Tensor], Tensor]:
    """Pixels to network inputs: the dataset's own, or with the network's mean and standard deviation."""
    if mean is None or std is None:
        return dataset.inputs
    centre, spread = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))

    def standardise(pixels: Tensor) -> Tensor:
        return (pixels.float() / 255 - centre.to(pixels.device)) / spread.to(pixels.device)

    return standardise


@dataclass(frozen=True)
class Loaded:
    """A teacher with the transforms to its inputs."""

    teacher: Teacher
    inputs: Callable[[Tensor], Tensor]
    """Pixels uint8 [N, C, H, W] -> its inputs."""
    of_students: Callable[[Tensor], Tensor]
    """Network inputs of students, such as views [N, C, H, W] float32 -> its inputs."""
    test_acc: float | None
    """Its accuracy on the test split in [0, 1]; None if it was not recorded."""


def load_checkpoint(
    dataset: Dataset,
    teacher: TeacherSpec,
    trajectory: str,
    epoch: int | None,
    store: Store,
    device: torch.device,
) -> Loaded:
    """A network from the store; `ArtifactError` if it is not in the store."""
    artifact = get(store, "checkpoint", name_of(trajectory, epoch))
    with torch.random.fork_rng(devices=[]):
        network = zoo.build(teacher.arch, dataset.channels, dataset.classes, dataset.resolution)
    network.load_state_dict(read_weights(artifact.path("weights.safetensors")))
    statistics = artifact.meta.get("mean"), artifact.meta.get("std")
    inputs = _inputs(dataset, *statistics)

    def of_students(views: Tensor) -> Tensor:
        return views if statistics[0] is None else inputs(dataset.scaled(views) * 255)

    return Loaded(Teacher(network, device), inputs, of_students, artifact.meta.get("test_acc"))


def score_records(trajectories: Sequence[str], epochs: int, store: Store) -> NDArray[Any]:
    """Records [networks, epochs, 4, N] float32 of the epochs 1 to `epochs`."""

    def one(trajectory: str, epoch: int) -> NDArray[Any]:
        artifact = get(store, "scores", checkpoint_name(trajectory, epoch))
        record: NDArray[Any] = read_array(artifact.path("record.npy"))
        return record

    return np.stack([np.stack([one(t, e) for e in range(1, epochs + 1)]) for t in trajectories])

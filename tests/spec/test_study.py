"""Study files: what they mean, and that what cannot be is refused with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raydc.data.dataset import Dataset
from raydc.errors import InputError
from raydc.spec.facts import DataFacts, bind
from raydc.spec.shipped_studies import studies
from raydc.spec.study import StudySpec, load_study, parse_study
from raydc.spec.yaml_file import dump_yaml, parse_yaml

EXAMPLE = """
name: example
dataset: digits
teacher: {arch: convnet-d2-w32, epochs: 30, keep: [2, 5, 10, 30]}
base:
  images: {method: random, ipc: 10}
  labels: {kind: soft, teacher_epoch: 30, temperature: 1.0}
  student: {arch: convnet-d2-w32}
  train: {recipe: label-worth, steps: 300, augment: none}
grid:
  images.method: [random, el2n]
  images.ipc: [1, 2, 5, 10, 20]
  labels.kind: [hard, soft]
  labels.teacher_epoch: [2, 5, 30]
  labels.temperature: [1, 4]
seeds: 3
smoke: {base.train.steps: 20}
"""


def example(*settings: str, smoke: bool = False) -> StudySpec:
    return parse_study(EXAMPLE, "example.yaml", settings=settings, smoke=smoke)


def test_a_hard_point_is_one_evaluation_not_one_a_temperature() -> None:
    evaluations = example().evaluations()
    hard = [e for e in evaluations if e.point["labels.kind"] == "hard"]
    soft = [e for e in evaluations if e.point["labels.kind"] == "soft"]
    assert len(hard) == 2 * 5 * 3
    assert len(soft) == 2 * 5 * 3 * 2 * 3
    assert not any("labels.temperature" in e.point for e in hard)
    assert not any("images.end" in e.point for e in evaluations if e.method == "random")


def test_grids_may_be_a_union_and_equal_points_collapse() -> None:
    study = parse_study(
        EXAMPLE.split("grid:")[0]
        + "grid:\n  - images.ipc: [1, 2]\n  - images.ipc: [2, 5]\n    labels.temperature: [1, 4.0]\n",
        "f",
    )
    assert len(study.evaluations()) == 1 + 4


def test_no_grid_is_one_point() -> None:
    text = EXAMPLE.split("grid:")[0]
    assert len(parse_study(text, "f").evaluations()) == 1
    assert len(parse_study(text + "grid: {}", "f").evaluations()) == 1


def test_steps_and_epochs_replace_each_other_by_layer() -> None:
    assert example().evaluations()[0].recipe.steps == 300
    assert example(smoke=True).evaluations()[0].recipe.steps == 20
    later = example("base.train.epochs=7").evaluations()[0].recipe
    assert (later.epochs, later.steps) == (7, None)
    gridded = example("grid.train.epochs=[3, 4]").evaluations()
    assert {e.recipe.epochs for e in gridded} == {3, 4}
    assert {e.recipe.steps for e in gridded} == {None}
    recipe = parse_study(EXAMPLE.replace("steps: 300, ", ""), "f").evaluations()[0].recipe
    assert (recipe.epochs, recipe.steps) == (3000, None)


def test_teacher_replicas_are_a_number_a_range_or_as_many_as_have_room() -> None:
    def of(setting: str, places: int) -> tuple[int, int]:
        return example(f"resources.teacher_replicas={setting}").resources.replicas(places)

    assert example().resources.replicas(8) == (1, 1)
    assert of("3", 2) == (3, 3)
    assert of("auto", 8) == (1, 8)
    assert of("[2, 4]", 8) == (2, 4)
    assert of("[1, 4]", 2) == (1, 2)
    assert of("[2, 4]", 1) == (2, 2)
    # What a run may use says nothing of what is evaluated.
    assert example("resources.teacher_replicas=auto").evaluations() == example().evaluations()
    study = example("resources.teacher_replicas=[2, 4]")
    assert parse_study(study.to_yaml(), "study.yaml").resources == study.resources


def test_settings_reach_every_part_of_the_file(tmp_path: Path) -> None:
    study = example(
        "seeds=[4, 7]",
        "grid.images.ipc=[3]",
        "teacher.epochs=40",
        "resources.workers=2",
        "base.images={method: herding, ipc: 4}",
        "grid.images.method=null",
        f"dataset.parquet={tmp_path}",
    )
    assert study.seeds == (4, 7)
    assert {e.ipc for e in study.evaluations()} == {3}
    assert {e.method for e in study.evaluations()} == {"herding"}
    assert study.teachers["teacher"].epochs == 40
    assert study.dataset.source == "parquet"


def test_the_resolved_file_gives_an_equal_study() -> None:
    study = example("seeds=2", smoke=True)
    again = parse_study(study.to_yaml(), "study.yaml")
    assert again.evaluations() == study.evaluations()


def test_several_teachers_and_a_scorer() -> None:
    text = EXAMPLE.replace(
        "teacher: {arch: convnet-d2-w32, epochs: 30, keep: [2, 5, 10, 30]}",
        "teachers:\n"
        "  early: {arch: convnet-d2-w32, epochs: 30, lr: 0.1}\n"
        "  late: {arch: convnet-d2-w8, epochs: 30}\n"
        "scorer: early",
    ).replace("grid:", "grid:\n  labels.teacher: [early, late]")
    evaluations = parse_study(text, "f").evaluations()
    soft = [e for e in evaluations if e.teacher is not None]
    assert {e.teacher.arch for e in soft} == {"convnet-d2-w32", "convnet-d2-w8"}
    assert {e.scorer.name for e in evaluations if e.method == "el2n"} == {"early"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("base.images.icp=3", "base.images.icp is not a key of images; choose"),
        ("base.images.icp=3", "did you mean images.ipc?"),
        ("base.imges.ipc=3", "base.imges.ipc is not a key; keys begin with"),
        ("base.images.ipc=0", "base.images.ipc is 0, but must be a whole number of at least 1"),
        ("base.images.ipc=2.5", "base.images.ipc is 2.5"),
        ("base.images.ipc=true", "base.images.ipc is true"),
        ("base.images.ipc='4'", "base.images.ipc is '4'"),
        ("grid.images.ipc=[1, 0]", "grid.images.ipc is 0"),
        ("grid.images.ipc=[]", "grid.images.ipc is an empty list"),
        ("grid.labels.temperature=[0]", "must be a finite number above 0"),
        ("grid.labels.temperature=[.nan]", "must be a finite number above 0"),
        ("grid.labels.temperature=[.inf]", "must be a finite number above 0"),
        ("grid.labels.teacher_epoch=[7]", "keeps only the epochs 2, 5, 10 and 30; add 7"),
        ("grid.labels.teacher_epoch=[31]", "is trained for 30 epochs"),
        ("grid.labels.ensemble=[2]", "has count 1"),
        ("seeds=-1", "seeds is -1"),
        ("seeds=[0, -2]", "seeds is [0, -2]"),
        ("seeds=[]", "seeds is []"),
        ("seeds=two", "seeds is 'two'"),
        ("name=a/b", "name is 'a/b', but must be letters"),
        ("name=../x", "name is '../x'"),
        ("base.train.mixup_alpha=1", "base.train.mixup_alpha (1.0) applies to no point of this study"),
        ("base.train.mixup_alpha=1", "it applies where train.augment is mixup"),
        ("base.train.augment=[flp]", "did you mean flip?"),
        ("base.train.loss=ce", "does not support soft labels"),
        ("base.train.crop_scale=[0.9, 0.1]", "the first is larger"),
        ("dataset=digit", "did you mean digits?"),
        ("dataset.resolutoin=8", "did you mean resolution?"),
        ("dataset.val_fraction=1", "dataset.val_fraction is 1"),
        ("dataset.classes=[1]", "at least two different classes"),
        ("dataset={name: digits, folder: x}", "gives name or folder of dataset at once"),
        ("tracking.url=x", "tracking.url is not a key of tracking"),
        ("resources.teacher_replicas=0", "resources.teacher_replicas is 0, but must be auto, a whole number"),
        (
            "resources.teacher_replicas=[3, 2]",
            "resources.teacher_replicas is [3, 2], but must be auto, a whole",
        ),
        (
            "resources.teacher_replicas=[0, 2]",
            "resources.teacher_replicas is [0, 2], but must be auto, a whole",
        ),
        ("resources.teacher_replicas=[1]", "or [N, M] with N at most M"),
        ("resources.teacher_replicas=many", "resources.teacher_replicas is 'many', but must be auto"),
        ("resources.workers=0", "resources.workers is 0"),
        ("resources.gpu_share=2", "resources.gpu_share is 2"),
        ("teacher.keep=[40]", "teacher.keep has 40"),
        ("teacher.steps=1", "teachers are trained for epochs"),
        ("teacher.moment=1", "did you mean momentum?"),
        ("teacher={arch: convnet-d2-w8, checkpoint: x, epochs: 3}", "epochs cannot be used with checkpoint"),
        ("teacher=null", "which needs a teacher"),
        ("base.student.arch=convnet", "convnet-dD-wW"),
        ("base.images.encoding=jpeg-0", "jpeg-QUALITY"),
        ("base=3", "base is 3"),
        ("bsae.images.ipc=3", "bsae is not a block of a study file"),
        ("grid.labels.kind=[hard]", "applies to no point"),
        (
            "grid={labels.kind: [smooth], train.loss: [mse_ce]}",
            "needs a teacher's logits, but labels.kind is smooth",
        ),
        ("grid={labels.kind: [learned], labels.inner_steps: [9]}", "must be at most labels.inner_steps, 9"),
        (
            "grid={labels.kind: [learned], labels.init: [zero]}",
            "labels.init is 'zero', but must be hard or teacher",
        ),
        ("grid={labels.kind: [learned]}", "labels.kind is learned with labels.init is teacher"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(setting: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        example(setting)
    text = str(error.value)
    assert said in text
    assert text.startswith(("example.yaml", "--set"))
    assert "\n" not in text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps: 300", "steps: 300, epochs: 3", "base.train.epochs and train.steps exclude each other"),
        ("seeds: 3", "seeds: 3\nsteps: 4", "steps is not a key"),
        ("name: example\n", "", "name is missing"),
        ("seeds: 3", "seeds: 3\nseeds: 4", "is given twice"),
        ("images.ipc: [1, 2, 5, 10, 20]", "images.ipc: {a: 1}", "a grid has dotted keys"),
        ("base:", "base: [1]\nbased:", "base"),
    ],
)
def test_a_file_that_cannot_be_is_refused(old: str, new: str, said: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(InputError) as error:
        parse_study(EXAMPLE.replace(old, new, 1), "example.yaml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such study file"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is not UTF-8 text"):
        load_study(tmp_path / "binary.yaml")
    (tmp_path / "large.yaml").write_text("a: 1\n" + "#" * (1 << 20))
    with pytest.raises(InputError, match="split the study"):
        load_study(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["base.images.ipc=98"], "the class '8' has 97 training images"),
        (["base.student.arch=convnet-d4-w8"], "choose a depth of at most 3"),
        (["base.labels={kind: soft, top_k: 11}"], "labels.top_k is 11, but must be at most"),
        (["base.labels={kind: soft, drop_class: ten}"], "labels.drop_class is 'ten', which is not a class"),
        (["base.images.drop_class=10"], "numbered from 0 to 9"),
    ],
)
def test_what_the_data_cannot_bear_is_refused(
    small: Callable[..., StudySpec], digits: Dataset, settings: list[str], said: str
) -> None:
    study = small(*settings)
    with pytest.raises(InputError) as error:
        bind(study.evaluations(), digits.facts, study.source)
    assert said in str(error.value)
    assert str(error.value).startswith("small.yaml: ")


@pytest.mark.parametrize("key", ["top_k", "store_top_k"])
def test_more_classes_than_class_numbers_are_refused_where_these_are_stored(
    small: Callable[..., StudySpec], digits: Dataset, key: str
) -> None:
    def facts(classes: int) -> DataFacts:
        names = tuple(map(str, range(classes)))
        return replace(digits.facts, class_names=names, train_counts=(9,) * classes)

    study = small("base.labels.kind=soft", f"base.labels.{key}=5")
    assert bind(study.evaluations(), facts(65_536), study.source)
    with pytest.raises(
        InputError, match=rf"^small.yaml: labels.{key} is 5, .* 65,536 classes, .* 65,537; remove it"
    ):
        bind(study.evaluations(), facts(65_537), study.source)


@pytest.mark.parametrize("shipped", studies(), ids=lambda s: s.name)
@pytest.mark.parametrize("smoke", [False, True])
def test_every_shipped_study_loads_and_has_a_header(shipped: object, smoke: bool) -> None:
    study = load_study(shipped.path, smoke=smoke)
    assert study.evaluations()
    assert study.name == shipped.name
    header = shipped.path.read_text().split("\nname:")[0]
    for word in (f"raydc run {shipped.name}", "evaluations:", "hardware:", "time:", "expect:"):
        assert word in header


@pytest.mark.parametrize("name", ["1e3", "true", "null", "1.5", "0x1f", "2e5"])
def test_texts_that_look_like_numbers_stay_texts(name: str) -> None:
    study = example()
    raw = {**study.raw, "name": name}
    assert parse_yaml(dump_yaml(raw), "x") == raw


def test_a_grid_on_the_command_line_replaces_the_files() -> None:
    study = example("grid={images.ipc: [1]}")
    assert [dict(grid) for grid in study.grids] == [{"images.ipc": (1,)}]


def test_folders_of_the_command_line_are_kept_whole_and_passwords_are_not() -> None:
    study = example().located("http://me:secret@host:5000", "some/store")
    said = study.to_yaml()
    assert "secret" not in said
    kept = parse_yaml(said, "study.yaml")
    assert kept["tracking"] == {"uri": "http://me@host:5000"}
    assert Path(kept["store"]["uri"]).is_absolute()
    assert study.tracking.uri == "http://me:secret@host:5000"


def test_passwords_of_the_file_itself_are_not_kept() -> None:
    study = parse_study(
        EXAMPLE.replace("smoke: {", "smoke: {store.uri: 's3://bucket/x?secret_key=hidden', ")
        + "store: {uri: 's3://KEY:hidden@bucket/x?region=eu&session_token=hidden'}\n"
        + "tracking: {uri: 'http://me:hidden@host:5000'}\n",
        "f",
    )
    said = study.to_yaml()
    assert "hidden" not in said
    assert parse_study(said, "f").store_uri == "s3://KEY@bucket/x?region=eu"
    assert parse_study(said, "f").evaluations() == study.evaluations()
    assert study.store_uri is not None
    assert "hidden" in study.store_uri

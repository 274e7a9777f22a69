"""Bad input: one sentence, exit code 2, and nothing was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from raydc.commands.app import app
from raydc.errors import InputError
from raydc.study.api import Study
from tests.shell import STUDY


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYDC_STORE", str(tmp_path / "store"))
    Path("tiny.yaml").write_text(STUDY)


def raydc(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refused(*arguments: str) -> str:
    """The sentence with which a command is refused."""
    result = raydc(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert not Path("runs").exists() or not any(Path("runs").rglob("ledger.jsonl"))
    assert not any((Path("store") / kind).exists() for kind in ("checkpoint", "set", "logits"))
    return lines[0]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("base.images.icp=1", "tiny.yaml: base.images.icp is not a key of images"),
        ("grid.images.ipc=[0]", "tiny.yaml: grid.images.ipc is 0, but must be"),
        ("grid.images.ipc=[5000]", "images.ipc is 5000, but the class '8' has 97 training images"),
        ("base.labels.temperature=0", "base.labels.temperature is 0, but must be a finite number above 0"),
        ("base.labels.temperature=.nan", "base.labels.temperature is nan"),
        ("grid.labels.teacher_epoch=[2]", "keeps only the epochs 1 and 3; add 2 to its keep"),
        ("grid.images.ipc=[]", "grid.images.ipc is an empty list"),
        ("base.student.arch=convnet-d4-w8", "choose a depth of at most 3 or raise dataset.resolution"),
        ("seeds=-3", "seeds is -3"),
        ("name=a/b", "name is 'a/b'"),
        ("base.images.end=hard", "base.images.end ('hard') applies to no point"),
        ("dataset.parquet=nowhere", "dataset.parquet is 'nowhere', but there is no such folder"),
        ("dataset=cifar10", "cifar10 is not in 'data'"),
        ("base.student.arch=timm/resnt18", "did you mean resnet18?"),
        ("base.student.arch=torchvision/resnet18", "takes images with 3 channels"),
        ("seeds=[100000000000000000000]", "list of different whole numbers"),
        ("base.train.batch_size=1e25", "the largest number is 2**63 - 1"),
        ("dataset.val_fraction=0.9999", "dataset.val_fraction is 0.9999, so choose a smaller one"),
        ("dataset.classes=[2, 1, '1']", "dataset.classes lists the class '1' twice"),
        ("dataset=5", "dataset is 5, but must be a name, or one of"),
        ("resources.workers=lots", "must be auto or a whole number"),
        ("resources.evaluation_timeout_seconds=.inf", "must be a finite number"),
        ("grid=5", "grid is 5, but must be a mapping of dotted keys"),
        ("name=2024", "write a number in quotes"),
        ("base.student.arch=convnet-d2-w99999999", "(W at most 9999)"),
        ("smoke=3", "the smoke block is merged by --smoke"),
    ],
)
def test_a_study_that_cannot_be(setting: str, said: str) -> None:
    assert said in refused("run", "tiny.yaml", "--set", setting)


def test_a_set_that_is_larger_than_the_data() -> None:
    text = STUDY.replace("images.ipc: [1, 2, 4, 8]", "images.method: [el2n]")
    Path("tiny.yaml").write_text(text)
    settings = ("--set", "base.images={ipc: 500, balance: global}")
    assert "there are 1,000 training images" in refused("run", "tiny.yaml", *settings)


def test_a_store_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYDC_STORE")
    sentence = refused("run", "tiny.yaml", "--set", "store.uri=/dev/null/x")
    assert "the store is '/dev/null/x', which cannot be created" in sentence


def test_published_weights_that_are_not() -> None:
    Path("bad.yaml").write_text(
        "name: bad\ndataset: digits\nteacher: {arch: timm/resnet18, weights: nobody}\n"
        "base: {images.ipc: 1, labels.kind: soft, student.arch: convnet-d2-w8}\n"
    )
    assert "'nobody', which timm/resnet18 does not have" in refused("run", "bad.yaml")


def test_published_weights_of_another_input_size() -> None:
    Path("bad.yaml").write_text(
        "name: bad\ndataset: {name: digits, resolution: 32}\n"
        "teacher: {arch: timm/vit_tiny_patch16_224, weights: augreg_in21k_ft_in1k}\n"
        "base: {images.ipc: 1, labels.kind: soft, student.arch: convnet-d2-w8}\n"
    )
    said = "whose network takes images of 224 x 224 pixels, but the data have 32 x 32"
    assert said in refused("run", "bad.yaml")


def test_a_smoke_block_that_cannot_be() -> None:
    Path("tiny.yaml").write_text(STUDY + "smoke: {base.train.stepz: 1}\n")
    assert "base.train.stepz is not a key of train" in refused("run", "tiny.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STUDY + "seeds: 2\n", "the key 'seeds' is given twice"),
        (STUDY.replace("seeds: 2", "seeds: !!python/name:os.system"), "tag"),
        (STUDY + "  x: [\n", "line"),
        ("- a\n- b\n", "a study file is a mapping"),
        ("", "a study file is a mapping"),
        (
            "name: bad\ndataset: digits\nteacher: {arch: convnet-d2-w8, checkpoint: none.pt}\n"
            "base: {images.ipc: 1, labels.kind: soft, student.arch: convnet-d2-w8}\n",
            "teacher.checkpoint is 'none.pt', which cannot be read",
        ),
    ],
)
def test_a_file_that_cannot_be(text: str, said: str) -> None:
    Path("bad.yaml").write_text(text)
    sentence = refused("run", "bad.yaml")
    assert sentence.startswith("error: bad.yaml: ")
    assert said in sentence


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("foo://bar", "the tracking URI is 'foo://bar', but must be a folder or begin with"),
        ("http://[bad", "does not answer"),
        ("sqlite:////proc/x/m.db", "there is no folder '/proc/x'"),
        ("sqlite:///", "the tracking URI is 'sqlite:///', which has no file"),
        ("sqlite:///:memory:", "which has no file"),
        ("postgresql://nobody@127.0.0.1:9/none", "does not answer"),
    ],
)
def test_a_record_that_cannot_be_opened(uri: str, said: str) -> None:
    assert said in refused("run", "tiny.yaml", "--tracking-uri", uri)
    assert said in refused("results", "mlflow:x", "--tracking-uri", uri)


def test_a_cluster_that_does_not_answer() -> None:
    sentence = refused("run", "tiny.yaml", "--address", "127.0.0.1:9", "--out", "out")
    assert "--address is '127.0.0.1:9', where no Ray cluster answers" in sentence
    assert not Path("out").exists()


def test_the_variables_of_ray_and_mlflow_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert "'127.0.0.1:9', where no Ray cluster answers" in refused("run", "tiny.yaml", "--out", "out")
    with pytest.raises(InputError, match="no Ray cluster answers"):
        Study.from_file("tiny.yaml").run("out", quiet=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://bar")
    for command in ("results", "watch", "compare"):
        assert "'foo://bar'" in refused(command, "mlflow:x")
    assert "http://[bad " in refused("results", "mlflow:x", "--tracking-uri", "http://[bad")


def test_a_table_that_cannot_be_written() -> None:
    Path("out").mkdir()
    Path("out/study.yaml").write_text(STUDY)
    assert "--csv is '/dev/null/x.csv'" in refused("results", "out", "--csv", "/dev/null/x.csv")


def test_weights_that_do_not_fit() -> None:
    from safetensors.torch import save_file

    from raydc.networks.zoo import build

    save_file(build("convnet-d2-w16", 1, 10, 8).state_dict(), "wide.safetensors")
    Path("bad.yaml").write_text(
        "name: bad\ndataset: digits\nteacher: {arch: convnet-d2-w8, checkpoint: wide.safetensors}\n"
        "base: {images.ipc: 1, labels.kind: soft, student.arch: convnet-d2-w8}\n"
    )
    assert "whose weights are not those of convnet-d2-w8" in refused("run", "bad.yaml")


def test_a_server_that_does_not_answer() -> None:
    sentence = refused("run", "tiny.yaml", "--tracking-uri", "http://127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9 does not answer" in sentence
    assert "start the server or give another --tracking-uri" in sentence


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "quikstart"), "did you mean quickstart?"),
        (("run", "."), "it is a folder"),
        (("run", "tiny.yaml", "--set", "steps"), "it must be KEY=VALUE"),
        (("run", "tiny.yaml", "--store", "nonsense://x"), "cannot be opened"),
        (("run", "tiny.yaml", "--store", "s3://"), "the store 's3://' names no bucket"),
        (("run", "tiny.yaml", "--store", "file:///"), "the store 'file:///' names no bucket"),
        (("results", "nowhere"), "holds no study"),
        (("results", "nowhere", "--only", "x=1"), "holds no study"),
        (("results", "mlflow:x"), "give --tracking-uri or set MLFLOW_TRACKING_URI"),
        (("list", "things"), "it must be datasets, methods"),
        (("report", "nowhere"), "holds no study"),
        (("sync", "nowhere"), "holds no study"),
    ],
)
def test_commands_that_cannot_be(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(*arguments)


def test_a_folder_that_holds_something_else() -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("x")
    assert "which holds other files (thesis.tex)" in refused("run", "tiny.yaml", "--out", "out")
    Path("other").mkdir()
    Path("other/study.yaml").write_text(STUDY.replace("name: tiny", "name: elder"))
    assert "holds the study 'elder'" in refused("run", "tiny.yaml", "--out", "other")


def test_a_folder_whose_files_are_damaged() -> None:
    Path("out/ledger.jsonl").mkdir(parents=True)
    Path("out/study.yaml").write_text(STUDY)
    assert "out/ledger.jsonl: it cannot be read" in refused("run", "tiny.yaml", "--out", "out")
    Path("other").mkdir()
    Path("other/study.yaml").write_bytes(b"\xfe\xff")
    assert "other/study.yaml: it cannot be read: it is not UTF-8" in refused(
        "run", "tiny.yaml", "--out", "other"
    )


def test_an_import_that_is_no_result() -> None:
    Path("out").mkdir()
    Path("out/study.yaml").write_text(STUDY)
    for content, said in (
        ("x", "line 1 is not JSON"),
        ("{}", "line 1 is not a result (evaluation_id is missing)"),
        (
            '{"evaluation_id": "a", "study": "tiny", "seed": 0, "status": "finished", "test_acc": 62.9, '
            '"started_at": 0, "finished_at": 1}',
            "has an invalid status, accuracy or time",
        ),
        (
            '{"evaluation_id": "a", "study": "x", "seed": 0, "status": "finished", "test_acc": 0.6, '
            '"started_at": 0, "finished_at": 1}',
            "belongs to the study 'x'",
        ),
    ):
        Path("results.jsonl").write_text(content)
        assert said in refused("sync", "out", "--import", "results.jsonl")


def test_a_plan_without_the_data_says_so() -> None:
    result = raydc("plan", "tiny.yaml", "--set", "dataset.parquet=nowhere")
    assert result.exit_code == 0
    assert "counted without them" in result.stdout
    assert "24" in result.stdout


def test_plan_starts_nothing() -> None:
    assert raydc("plan", "tiny.yaml").exit_code == 0
    assert sorted(os.listdir("store")) == ["pixels", "source", "statistics"]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("what", "one"),
    [
        ("datasets", "cifar10"),
        ("methods", "herding"),
        ("scores", "el2n"),
        ("labels", "per_view"),
        ("recipes", "label-worth"),
        ("augmentations", "dsa"),
        ("studies", "quickstart"),
        ("reproductions", "label-worth-table2"),
    ],
)
def test_lists(what: str, one: str) -> None:
    result = raydc("list", what)
    assert result.exit_code == 0
    assert one in [line.split()[0] for line in result.stdout.splitlines()]

"""Rows for MLflow, and what it has of them."""

from __future__ import annotations

from typing import Any

from mlflow import MlflowClient


def row(name: str, status: str = "finished", **values: Any) -> dict[str, Any]:
    return {
        "evaluation_id": name,
        "study": "s",
        "seed": 1,
        "status": status,
        "images.method": "random",
        "images.ipc": 10,
        "labels.kind": "soft",
        "labels.temperature": 4.0,
        "train.augment": "none",
        "dataset.zca": False,
        "test_acc": 0.625 if status == "finished" else None,
        "val_acc": 0.5,
        "test_acc_by_class": [0.5, None, 1.0],
        "images_bytes": 1234,
        "steps": 50,
        "device": "cpu",
        "attempts": 1,
        "started_at": 1000.25,
        "finished_at": 1002.5,
        "protocol_version": 1,
        "error": None if status == "finished" else "EvaluationError: no <b>luck</b>",
        **values,
    }


def children(uri: str) -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s")
    return [r for r in client.search_runs([experiment.experiment_id]) if "raydc.evaluation_id" in r.data.tags]

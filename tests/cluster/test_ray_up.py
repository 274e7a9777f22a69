"""Cluster files of `ray up` against Ray's own schema, and what they promise."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.launchers import RAY_UP, documents, name

CLOUDS = [path for path in RAY_UP if path.stem != "ssh"]


def valid(content: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(content)))


def test_all_are_here() -> None:
    assert [path.stem for path in RAY_UP] == ["aws", "azure", "gcp", "ssh"]


@pytest.mark.parametrize("path", RAY_UP, ids=name)
def test_ray_takes_it(path: Path) -> None:
    (content,) = documents(path)
    valid(content)
    with pytest.raises(jsonschema.ValidationError, match="head_setup_comands"):
        valid({**content, "head_setup_comands": []})


@pytest.mark.parametrize("path", CLOUDS, ids=name)
def test_gpus_come_from_the_spot_market_first(path: Path) -> None:
    (content,) = documents(path)
    types = content["available_node_types"]
    spot, sure = types["gpu_spot"], types["gpu_on_demand"]
    assert "spot" in str(spot["node_config"]).lower()
    assert "spot" not in str(sure["node_config"]).lower()
    assert spot["resources"] == sure["resources"]
    assert spot["resources"]["GPU"] > 0
    assert spot["priority"] > sure["priority"]
    # Ray's older scheduler knows no priority: of equal types it takes the last by name.
    assert "gpu_spot" > "gpu_on_demand"
    assert spot["min_workers"] == 0 < sure["min_workers"]
    assert types["head"]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("path", RAY_UP, ids=name)
def test_every_start_asks_for_the_token_and_keeps_to_the_loopback(path: Path) -> None:
    (content,) = documents(path)
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        starts = [c for c in content[f"{role}_start_ray_commands"] if "ray start" in c]
        assert len(starts) == 1
        assert "export RAY_AUTH_MODE=token" in starts[0].partition("ray start")[0]
    head = " ".join(content["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "mlflow_server.sh" in head
    password = head.partition("MLFLOW_AUTH_ADMIN_PASSWORD=")[2]
    assert password.startswith('"$(')

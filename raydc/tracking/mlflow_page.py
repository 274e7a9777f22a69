"""The state of MLflow's runs page for the evaluations of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raydc.tracking.names import LEADING_KEYS


def table_view(varying: Sequence[str]) -> dict[str, Any]:
    """The state of MLflow's runs page that shows a study's evaluations, best first.

    Its keys are those of MLflow's `ExperimentPageUIState` and `ExperimentPageSearchFacetsState`.
    """
    shown = [f"params.`{key}`" for key in dict.fromkeys((*LEADING_KEYS, *varying, "seed"))]
    return {
        "searchFilter": "tags.`raydc.evaluation_id` != ''",
        "orderByKey": "metrics.`val_acc`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["metrics.`test_acc`", "metrics.`val_acc`", *shown],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "groupBy": None,
        "groupsExpanded": {},
        "hideEmptyCharts": True,
    }

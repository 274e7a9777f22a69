"""The result of a search as sentences, a figure and tables, from search.json (raydc.search.history)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raydc.analysis.curves import label_of
from raydc.report.figures import Lines, Series

MOST_POINTS = 20
ACCURACIES = ("val_acc", "train_acc", "test_acc")

History = Mapping[str, Any]
Trial = Mapping[str, Any]


def formatted(metric: str, value: float) -> str:
    """A value of a metric: `91.2 %` for an accuracy, `12,345` for bytes and steps."""
    if metric in ACCURACIES:
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if metric.endswith("seconds") else f"{value:,.0f}"


def _values(history: History, trial: Trial) -> str:
    named = zip(history["metrics"], trial["values"], strict=True)
    return ", ".join(f"{metric} {formatted(metric, value)}" for metric, value in named)


def complete(history: History) -> list[Trial]:
    """Complete trials, by number."""
    return [trial for trial in history["trials"] if trial["state"] == "complete"]


def sentences(history: History) -> list[str]:
    """Sentences on the number of points and the winner."""
    states = [trial["state"] for trial in history["trials"]]
    counts = {state: states.count(state) for state in ("complete", "failed", "stopped")}
    by_state = ", ".join(f"{n} {state}" for state, n in counts.items() if n or state == "complete")
    found = [f"{sum(counts.values())} of {history['points']} points told: {by_state}."]
    if len(history["metrics"]) > 1:
        found.append(
            f"{len(history['best'])} points are on the Pareto front: no other is better in all metrics."
        )
    winner = next((trial for trial in history["trials"] if trial["number"] == history["winner"]), None)
    if winner is None:
        return [*found, "No point is complete, so there is no winner."]
    replicates = history["replicates"]
    mean = f" (mean of {replicates} replicates)" if replicates > 1 else ""
    text = f"The winner is trial {winner['number']}, {label_of(winner['params'])}: "
    text += f"{_values(history, winner)}{mean}"
    finals = finals_of(history)
    if (own := finals.get(winner["number"])) is not None:
        metric = history["chosen_by"]
        text += f" before the finals, {metric} {_interval(metric, own)} over all {own['count']} replicates "
        text += f"after them, the best of {len(finals)} finalists"
        if lost := sum(mean is None for mean in finals.values()):
            text += f", of which {lost} failed"
    if (accuracy := history["test_acc"]) is not None:
        text += f", test_acc {_interval('test_acc', accuracy)}"
        text += f" in {accuracy['count']} fresh replicate{'s' if accuracy['count'] > 1 else ''}"
    found.append(f"{text}.")
    if finals and not any(finals.values()):
        found.append(
            f"All {len(finals)} finalists failed in the finals, so the point with the best told value wins."
        )
    if len(tested := history.get("tested", ())) > 1:
        found.append(
            f"{len(tested)} points were tested, because the search continued after a winner was tested; "
            "do not choose among them by test_acc."
        )
    return found


def finals_of(history: History) -> dict[int, Mapping[str, Any] | None]:
    """Mean and interval of each finalist, by trial number; None for a finalist with a failure."""
    # JSON keys are strings, and files of older versions have no finals.
    return {int(number): mean for number, mean in history.get("finals", {}).items()}


def _interval(metric: str, mean: Mapping[str, Any]) -> str:
    """`91.2 % [90.5, 91.9]`."""
    text = formatted(metric, mean["value"])
    if mean["low"] is None:
        return text
    low, high = (formatted(metric, mean[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


def progress(history: History) -> list[Lines]:
    """The first metric of every point and the best so far, over trials; empty without a complete trial."""
    trials = complete(history)
    if not trials:
        return []
    metric, better = history["metrics"][0], max if history["modes"][0] == "max" else min
    x = tuple(float(trial["number"]) for trial in trials)
    told = tuple(float(trial["values"][0]) for trial in trials)
    best = tuple(better(told[: i + 1]) for i in range(len(told)))
    nothing, counts = (None,) * len(x), (int(history["replicates"]),) * len(x)
    series = (
        Series("best so far", x, best, nothing, nothing, counts),
        Series("point", x, told, nothing, nothing, counts),
    )
    return [
        Lines(
            title="Search",
            caption=f"{metric} of each point, and the best so far (sampler {history['sampler']}).",
            x_label="trial",
            y_label=metric,
            series=series,
            log=False,
            percent=metric in ACCURACIES,
        )
    ]


def points(history: History) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and body of the table of the best points, or of the Pareto front."""
    trials: Sequence[Trial] = complete(history)
    if len(history["metrics"]) > 1:
        trials = [trial for trial in trials if trial["number"] in history["best"]]
    sign = -1 if history["modes"][0] == "max" else 1
    trials = sorted(trials, key=lambda trial: sign * trial["values"][0])[:MOST_POINTS]
    keys = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    finals = finals_of(history)
    finals_column = ("in the finals",) if finals else ()

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    def final(number: int) -> str:
        if number not in finals:
            return "-"
        mean = finals[number]
        return "failed" if mean is None else _interval(history["chosen_by"], mean)

    body = tuple(
        (
            str(trial["number"]),
            *(formatted(m, v) for m, v in zip(history["metrics"], trial["values"], strict=True)),
            *(final(trial["number"]) for _ in finals_column),
            *(cell(trial["params"].get(key)) for key in keys),
        )
        for trial in trials
    )
    return ("trial", *history["metrics"], *finals_column, *keys), body

"""The process that writes one run to MLflow: told on standard input, it ends when the run is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_TAG = "proveout.evaluation"


def put(run: Mapping[str, Any]) -> None:
    """Writes the run of an evaluation to the tracking server that the environment names, unless it is there.

    One that was begun and not ended, by a process that died, is gone on with.
    """
    # Not with the others: MLflow is an extra, takes a second, and looks for git when it is imported.
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag, ViewType
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    experiment = client.get_experiment_by_name(run["experiment"])
    if experiment is None:
        with suppress(MlflowException):  # somebody else was quicker, or the next lines say why not
            client.create_experiment(run["experiment"])
        experiment = client.get_experiment_by_name(run["experiment"])
    if experiment is None:
        raise SystemExit(f"the experiment {run['experiment']} is neither there nor can be made")
    place = experiment.experiment_id
    wanted = f"tags.`{_TAG}` = '{run['evaluation']}'"
    known = client.search_runs([place], filter_string=wanted, run_view_type=ViewType.ALL)
    if any(one.info.status == "FINISHED" for one in known):
        return
    began, ended = (int(run[name] * 1000) for name in ("began", "ended"))
    made = known[0] if known else client.create_run(place, began, {_TAG: run["evaluation"]}, run["name"])
    client.log_batch(
        made.info.run_id,
        [Metric(name, value, ended, 0) for name, value in run["metrics"].items()],
        [Param(name, str(value)) for name, value in run["parameters"].items()],
        [RunTag(name, value) for name, value in run["tags"].items()],
    )
    for name, text in run["artefacts"].items():
        client.log_text(made.info.run_id, text, name)
    client.set_terminated(made.info.run_id, end_time=ended)


if __name__ == "__main__":
    put(json.load(sys.stdin))

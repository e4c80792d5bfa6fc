"""MLflow: a run in $MLFLOW_TRACKING_URI, by default in files at mlruns/ next to the run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dlkit.config.keys import flatten
from dlkit.errors import StorageError
from dlkit.privacy import offline
from dlkit.trackers import PROJECT, Line, Subject, Tracker, numbers

NEEDS, EXTRA = ("mlflow",), "mlflow"

TAG = "dlkit.run_id"
STATUS = {"finished": "FINISHED", "stopped": "KILLED"}  # else FAILED
# allow the file store, and do not delay training if the server is unreachable
DEFAULTS = {
    "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"
}  # fmt: skip


def check() -> None:
    """Raises: StorageError if DLKIT_OFFLINE forbids access to the server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if offline() and uri.partition(":")[0] in ("http", "https", "databricks"):
        raise StorageError("MLFLOW_TRACKING_URI is a server, but DLKIT_OFFLINE forbids the network. Unset one of them.")


def track(subject: Subject, history: Sequence[Line]) -> Tracker:
    """Identifies the run by its run_id. MLflow only appends, so logged steps are skipped."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    files = (subject.folder.parent / "mlruns").absolute().as_uri()
    client: Any = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or files)
    tracker = _Run(client, _run_id(client, subject))
    for line in history:
        tracker.log(line)
    return tracker


class _Run:
    def __init__(self, client: Any, run: str) -> None:
        self.client, self.run = client, run
        keys = client.get_run(run).data.metrics
        self.steps = {metric.step for key in keys for metric in client.get_metric_history(run, key)}

    def log(self, line: Line) -> None:
        if line["step"] not in self.steps:
            for name, value in numbers(line).items():
                self.client.log_metric(self.run, name, value, step=line["step"])

    def close(self, status: str) -> None:
        self.client.set_terminated(self.run, STATUS.get(status, "FAILED"))


def _run_id(client: Any, subject: Subject) -> str:
    """MLflow's id of the run, created if necessary."""
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    existing = client.get_experiment_by_name(experiment)
    experiment_id = existing.experiment_id if existing else client.create_experiment(experiment)
    for run in client.search_runs([experiment_id], f"tags.`{TAG}` = '{subject.run_id}'"):
        client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)
    run = client.create_run(experiment_id, run_name=subject.name, tags={TAG: subject.run_id})
    for key, value in flatten(subject.recipe).items():
        client.log_param(run.info.run_id, key, value)
    return str(run.info.run_id)

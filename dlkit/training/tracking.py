"""The trackers of a run: each is told every line of metrics.jsonl, and one that fails is told no more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from dlkit import export_metadata, registry
from dlkit.runs.run_folder import RunFolder
from dlkit.trackers import Subject, Tracker

Log = Callable[[Mapping[str, Any]], None]


def need(names: Sequence[str]) -> None:
    """Raises: UsageError with the pip command if a tracker's package is missing; StorageError if offline forbids it."""
    for name in names:
        module = registry.load("trackers", name)
        export_metadata.need(module.NEEDS, f"train.track {name}", module.EXTRA)
        if hasattr(module, "check"):
            module.check()


@contextmanager
def tracked(run: RunFolder, names: Sequence[str], say: Callable[[str], None]) -> Iterator[Log]:
    """What tells these trackers a line, while the block runs; at its end they are told how the run ended."""
    trackers: dict[str, Tracker] = {}

    def attempt(name: str, act: Callable[[], Any]) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the packages' own, which none of our users can heed
                return act()
        except Exception as error:  # whatever it is, the training goes on
            trackers.pop(name, None)
            say(f"warning: {name} is told no more of this run: {type(error).__name__}: {_first_line(error)}")
            return None

    def log(line: Mapping[str, Any]) -> None:
        for name, tracker in list(trackers.items()):
            attempt(name, partial(tracker.log, line))

    def close(status: str) -> None:
        for name, tracker in list(trackers.items()):
            attempt(name, partial(tracker.close, status))

    for name in dict.fromkeys(names):
        if (tracker := attempt(name, partial(_opened, name, run))) is not None:
            trackers[name] = tracker
    try:
        yield log
    except BaseException:
        close(str(run.info().get("status")))
        raise
    close("finished")


def _opened(name: str, run: RunFolder) -> Tracker:
    subject = Subject(run.path, run.name, str(run.info()["run_id"]), run.recipe().model_dump(mode="json"))
    tracker: Tracker = registry.load("trackers", name).track(subject, run.metrics(lambda text: None))
    return tracker


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")

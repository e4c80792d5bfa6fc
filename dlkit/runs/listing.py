"""The runs and experiments (sweeps, ablations, groups of seeds) of a folder: filtered, sorted and tagged.

No torch here. Tags are stored in tags.json of the run or the experiment, and affect no result.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dlkit import atomic_io
from dlkit.errors import DlkitError, UsageError
from dlkit.registry import did_you_mean
from dlkit.runs import run_folder
from dlkit.runs.experiments import Experiment, list_experiments
from dlkit.runs.summary import RunSummary, listing, summary

RUN = "run"
TAG = re.compile(r"[^\s,]{1,60}")
TAGS = "tags.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ListEntry(RunSummary):
    """A row of `dlkit runs list`: a run, or an experiment with the best value of its members, or their mean."""

    kind: str = RUN
    members: int | None = None  # of an experiment
    tags: tuple[str, ...] = ()


FIELDS = tuple(ListEntry.__dataclass_fields__)


def entries(runs_dir: Path, *, members: bool = False, say: Say = lambda text: None) -> list[ListEntry]:
    """All runs and experiments, oldest first; with `members` each experiment is followed by its runs."""
    blocks = [[_run_entry(line)] for line in listing(runs_dir, say)]
    for experiment in list_experiments(runs_dir):
        lines = list(_summaries(experiment, say))
        member_entries = [_run_entry(line, f"{experiment.name}/{Path(line.path).name}") for line in lines]
        blocks.append([_experiment_entry(experiment, lines, say), *(member_entries if members else ())])
    return [
        entry for block in sorted(blocks, key=lambda block: (block[0].when or "", block[0].name)) for entry in block
    ]


def filter_entries(entries: Iterable[ListEntry], conditions: Sequence[str]) -> list[ListEntry]:
    """The entries that satisfy all conditions: KEY=PATTERN, KEY!=PATTERN, KEY>NUMBER or KEY<NUMBER.

    Raises:
        UsageError: no such key, or none of these forms.
    """
    tests = [_condition(text) for text in conditions]
    return [entry for entry in entries if all(test(entry) for test in tests)]


def sort_entries(entries: Sequence[ListEntry], key: str, reverse: bool) -> list[ListEntry]:
    """The entries sorted by a field; those without a value are last."""
    _check_key(key, "--sort")
    known = [entry for entry in entries if getattr(entry, key) is not None]
    unknown = [entry for entry in entries if getattr(entry, key) is None]
    return sorted(known, key=lambda entry: getattr(entry, key), reverse=reverse) + unknown


def tags_of(folder: Path) -> tuple[str, ...]:
    """The tags of a run or an experiment, sorted; none if the file is damaged."""
    try:
        return tuple(sorted(map(str, json.loads((folder / TAGS).read_bytes())["tags"])))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def tag(folder: Path, add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """Add and remove tags; returns the remaining ones.

    Raises:
        UsageError: a tag is empty, too long, or contains a space or a comma.
    """
    for word in (*add, *remove):
        if not TAG.fullmatch(word) or not word.isprintable():
            raise UsageError(f"tag {word!r} is not a word of at most 60 characters. Remove spaces and commas.")
    tags = sorted({*tags_of(folder), *add} - set(remove))
    atomic_io.write_json(folder / TAGS, {"schema": "dlkit.tags/1", "tags": tags})
    return tuple(tags)


def _run_entry(line: RunSummary, name: str | None = None) -> ListEntry:
    values = asdict(line) | ({"name": name} if name else {})
    return ListEntry(**values, tags=tags_of(Path(line.path)))


def _summaries(experiment: Experiment, say: Say) -> Iterator[RunSummary]:
    for run in experiment.members:
        try:
            yield summary(run)
        except DlkitError as error:
            say(f"warning: {error}")


def _experiment_entry(experiment: Experiment, lines: Sequence[RunSummary], say: Say) -> ListEntry:
    document: Mapping[str, Any] = {}
    try:
        document = experiment.document()
    except DlkitError as error:
        say(f"warning: {error}")
    best = document.get("mean") if experiment.kind == "seeds" else (document.get("best") or {}).get("value")
    states = Counter(line.status for line in lines if line.status not in ("finished", "pruned", "diverged"))
    first = lines[0] if lines else None
    return ListEntry(
        name=experiment.name,
        path=str(experiment.path),
        model=document.get("model") or (first.model if first else None),
        dataset=document.get("dataset") or (first.dataset if first else None),
        status=states.most_common(1)[0][0] if states else "finished" if lines else "empty",
        epochs=sum(line.epochs or 0 for line in lines),
        metric=document.get("metric") or (first.metric if first else None),
        best=best,
        when=min((line.when for line in lines if line.when), default=None),
        kind=experiment.kind,
        members=len(lines),
        tags=tags_of(experiment.path),
    )


def _check_key(key: str, flag: str) -> None:
    if key not in FIELDS:
        raise UsageError(f"{flag} {key}: no such column. {did_you_mean(key, FIELDS)}")


def _condition(text: str) -> Callable[[ListEntry], bool]:
    matched = re.fullmatch(r"(\w+)(=|!=|<|>)(.*)", text)
    if matched is None:
        raise UsageError(f"--filter takes KEY=PATTERN, KEY!=PATTERN, KEY<NUMBER or KEY>NUMBER, not {text!r}.")
    key, sign, pattern = matched.groups()
    key = {"tag": "tags"}.get(key, key)
    _check_key(key, "--filter")
    if sign in "<>":
        try:
            limit = float(pattern)
        except ValueError:
            return lambda entry: (_text(entry, key) < pattern) == (sign == "<") and _text(entry, key) != pattern
        return lambda entry: _exceeds(getattr(entry, key), limit, sign)
    return lambda entry: _matches(getattr(entry, key), pattern) == (sign == "=")


def _matches(value: Any, pattern: str) -> bool:
    values = value if isinstance(value, tuple) else ("" if value is None else value,)
    return any(fnmatchcase(str(one), pattern) for one in values)


def _exceeds(value: Any, limit: float, sign: str) -> bool:
    return isinstance(value, int | float) and (value > limit if sign == ">" else value < limit)


def _text(entry: ListEntry, key: str) -> str:
    return str(getattr(entry, key) or "")


def folder_of(name: str, runs_dir: Path) -> Path:
    """The folder of a run or an experiment by its name or path.

    Raises:
        UsageError: there is none.
    """
    from dlkit.runs.experiments import find_experiment

    experiment = find_experiment(name, runs_dir)
    return run_folder.find(name, runs_dir).path if experiment is None else experiment.path

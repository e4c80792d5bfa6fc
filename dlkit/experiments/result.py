"""The result of a sweep: its document, its table, its picture, and the best trial as a recipe."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlkit import atomic_io, csv_text, documents
from dlkit.config import search_space, yaml_file
from dlkit.config.resolve import with_settings
from dlkit.config.schema import Recipe
from dlkit.config.search_space import Parameter
from dlkit.experiments.confirm import Confirmation, best_confirmed
from dlkit.experiments.evidence import Evidence, importance_sentence
from dlkit.experiments.trials import FINISHED, Plan, Trial, lower_is_better

SCHEMA = "dlkit.sweep/1"
BEST = "best.yaml"
FOUND_BY = "Found by:"  # begins a line of its header


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep."""

    plan: Plan
    trials: tuple[Trial, ...]
    evidence: Evidence = field(default_factory=Evidence)
    confirmed: tuple[Confirmation, ...] = ()

    @property
    def folder(self) -> Path:
        return self.plan.folder

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @property
    def space(self) -> tuple[Parameter, ...]:
        return self.plan.space

    @property
    def ranked(self) -> list[Trial]:
        """The trials, the best first, the earlier of two that are equal; those that were ended early come last."""
        sign = 1 if lower_is_better(self.recipe) else -1

        def rank(trial: Trial) -> tuple[bool, float]:
            return trial.state != FINISHED, math.inf if trial.value is None else sign * trial.value

        return sorted(self.trials, key=rank)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what a row holds."""
        confirmed = ("confirmed",) if self.confirmed else ()
        keys = (parameter.key for parameter in self.space)
        return ("trial", "state", self.recipe.train.monitor, *confirmed, "epoch", *keys, "run", "verdict")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial, the best first."""
        means = {found.trial: found.mean for found in self.confirmed}
        return [
            {
                "trial": trial.number,
                "state": trial.state,
                self.recipe.train.monitor: trial.value,
                "confirmed": means.get(trial.number),
                "epoch": trial.epoch,
                **trial.parameters,
                "run": trial.run,
                "verdict": self._verdict(trial),
            }
            for trial in self.ranked
        ]

    @property
    def best(self) -> Trial | None:
        """The best of the trials that finished: by fresh seeds if some were confirmed, else by the sweep's own."""
        confirmed = best_confirmed(self.plan, self.confirmed)
        if confirmed is not None:
            return self.trials[confirmed]
        first = next(iter(self.ranked), None)
        return first if first is not None and first.state == FINISHED else None

    @property
    def sentences(self) -> list[str]:
        """What a reader of the best value should know, a sentence each."""
        finished = sum(trial.state == FINISHED for trial in self.trials)
        found = [importance_sentence(self.evidence), self.evidence.sentence(self.recipe.train.monitor, finished)]
        found += [
            f"confirmed under {len(one.seeds)} fresh seeds: {self.trials[one.trial].run} {self.recipe.train.monitor} "
            f"{one.mean:.4f} (95 % {one.low:.4f} to {one.high:.4f})"
            for one in self.confirmed
        ]
        return [sentence for sentence in found if sentence]

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.sweep/1`."""
        best, plan = self.best, self.plan
        return {
            "schema": SCHEMA,
            "sweep": self.folder.name,
            "model": self.recipe.model.name,
            "dataset": self.recipe.data.name,
            "metric": self.recipe.train.monitor,
            "lower_is_better": lower_is_better(self.recipe),
            "seed": self.recipe.train.seed,
            "pruning": plan.pruner != "none",
            "pruner": plan.pruner,
            "sampler": plan.sampler,
            "seeds_per_trial": plan.seeds,
            "space": {parameter.key: parameter.text for parameter in self.space},
            "trials": [asdict(trial) for trial in self.trials],
            **asdict(self.evidence),
            "confirmed": [asdict(one) for one in self.confirmed],
            "best": None if best is None else {**asdict(best), "recipe": str(self.folder / BEST)},
            "verdict": self.sentences if best is not None else [],
        }

    def _verdict(self, trial: Trial) -> str | None:
        if self.best is not None and trial.number == self.best.number:
            return "best"
        return "tied" if trial.number in self.evidence.tied else None


def write_document(found: Sweep) -> None:
    documents.write(found.folder / "sweep.json", found.document())


def write_files(found: Sweep, argv: Sequence[str]) -> None:
    cells = ([row.get(column) for column in found.columns] for row in found.rows)
    atomic_io.write_text(found.folder / "sweep.csv", csv_text.document([found.columns, *cells]))
    _draw(found, found.folder / "parallel.png")
    if found.best is not None:
        _write_best(found.folder / BEST, _best_recipe(found, found.best, argv))
    write_document(found)


def _write_best(path: Path, text: str) -> None:
    """Write the recipe, unless it differs from the one that is there by nothing but the command that found it."""

    def content(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith(f"# {FOUND_BY}")]

    if not path.is_file() or content(path.read_text(encoding="utf-8")) != content(text):
        atomic_io.write_text(path, text)


def _best_recipe(found: Sweep, best: Trial, argv: Sequence[str]) -> str:
    """The recipe of the best trial, under a few lines about where it comes from."""
    from dlkit.runs.provenance import without_passwords

    recipe = with_settings(found.recipe, search_space.settings(found.space, best.parameters))
    command = f"{FOUND_BY} {shlex.join(['dlkit', *without_passwords(argv)[1:]])}"
    header = [
        f"The best of {len(found.trials)} trials of {found.folder.name}: {recipe.model.name} on {recipe.data.name}.",
        f"{found.recipe.train.monitor} {best.value:.4f} at epoch {best.epoch} of {best.run}, seed {recipe.train.seed}.",
        *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in found.sentences),
        "Test it on images that no trial has seen.",
        *([command] if argv else []),
        "Varied:",
        *(f"  {varied.key}={varied.text}" for varied in found.space),
    ]
    lines = ("# " + "".join(letter if letter.isprintable() else "?" for letter in line) for line in header)
    return "\n".join(lines) + "\n" + yaml_file.dump(recipe)


def _draw(found: Sweep, path: Path) -> None:
    from dlkit.plots.parallel_coordinates import TrialLine, parameter_axis, write_parallel

    parameters = [
        parameter_axis(varied, all(varied.key in trial.parameters for trial in found.trials)) for varied in found.space
    ]
    trials = [
        TrialLine(
            [search_space.named(varied, trial.parameters) for varied in found.space],
            trial.value,
            trial.state == FINISHED,
        )
        for trial in reversed(found.ranked)
    ]
    title = f"{found.recipe.model.name} on {found.recipe.data.name}: {len(trials)} trials"
    write_parallel(
        parameters, trials, title, found.recipe.train.monitor, path, lower_is_better=lower_is_better(found.recipe)
    )

"""The result of a sweep: its document, its table, its figure, and the best trial as a recipe."""

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
from dlkit.experiments.trials import FINISHED, SweepPlan, SweepTrial, lower_is_better

SCHEMA = "dlkit.sweep/1"
BEST = "best.yaml"
FOUND_BY = "Found by:"  # the start of a line of its header


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep."""

    plan: SweepPlan
    trials: tuple[SweepTrial, ...]
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
    def ranked(self) -> list[SweepTrial]:
        """The trials, the best first, of equal ones the earlier; those that ended early are last."""
        sign = 1 if lower_is_better(self.recipe) else -1

        def rank(trial: SweepTrial) -> tuple[bool, float]:
            return trial.state != FINISHED, math.inf if trial.value is None else sign * trial.value

        return sorted(self.trials, key=rank)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        confirmed = ("confirmed",) if self.confirmed else ()
        keys = (parameter.key for parameter in self.space)
        return ("trial", "state", self.recipe.train.monitor, *confirmed, "epoch", *keys, "run", "verdict")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial, the best first."""
        means = {confirmation.trial: confirmation.mean for confirmation in self.confirmed}
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
    def best(self) -> SweepTrial | None:
        """The best finished trial: by fresh seeds if some trials were confirmed, else by the sweep's own values."""
        confirmed = best_confirmed(self.plan, self.confirmed)
        if confirmed is not None:
            return self.trials[confirmed]
        first = next(iter(self.ranked), None)
        return first if first is not None and first.state == FINISHED else None

    @property
    def sentences(self) -> list[str]:
        """Remarks on the best value, a sentence each."""
        finished = sum(trial.state == FINISHED for trial in self.trials)
        monitor = self.recipe.train.monitor
        sentences = [importance_sentence(self.evidence), self.evidence.sentence(monitor, finished)]
        sentences += [
            f"confirmed under {len(confirmation.seeds)} fresh seeds: {self.trials[confirmation.trial].run} {monitor} "
            f"{confirmation.mean:.4f} (95 % {confirmation.low:.4f} to {confirmation.high:.4f})"
            for confirmation in self.confirmed
        ]
        return [sentence for sentence in sentences if sentence]

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
            "confirmed": [asdict(confirmation) for confirmation in self.confirmed],
            "best": None if best is None else {**asdict(best), "recipe": str(self.folder / BEST)},
            "verdict": self.sentences if best is not None else [],
        }

    def _verdict(self, trial: SweepTrial) -> str | None:
        if self.best is not None and trial.number == self.best.number:
            return "best"
        return "tied" if trial.number in self.evidence.tied else None


def write_document(sweep: Sweep) -> None:
    documents.write(sweep.folder / "sweep.json", sweep.document())


def write_files(sweep: Sweep, argv: Sequence[str]) -> None:
    cells = ([row.get(column) for column in sweep.columns] for row in sweep.rows)
    atomic_io.write_text(sweep.folder / "sweep.csv", csv_text.document([sweep.columns, *cells]))
    _draw(sweep, sweep.folder / "parallel.png")
    if sweep.best is not None:
        _write_best(sweep.folder / BEST, _best_recipe(sweep, sweep.best, argv))
    write_document(sweep)


def _write_best(path: Path, text: str) -> None:
    """Write the recipe, unless it differs from the existing one only by the command that sweep it."""

    def content(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith(f"# {FOUND_BY}")]

    if not path.is_file() or content(path.read_text(encoding="utf-8")) != content(text):
        atomic_io.write_text(path, text)


def _best_recipe(sweep: Sweep, best: SweepTrial, argv: Sequence[str]) -> str:
    """The recipe of the best trial, with a header about its origin."""
    from dlkit.runs.provenance import without_passwords

    recipe = with_settings(sweep.recipe, search_space.settings(sweep.space, best.parameters))
    command = f"{FOUND_BY} {shlex.join(['dlkit', *without_passwords(argv)[1:]])}"
    header = [
        f"The best of {len(sweep.trials)} trials of {sweep.folder.name}: {recipe.model.name} on {recipe.data.name}.",
        f"{sweep.recipe.train.monitor} {best.value:.4f} at epoch {best.epoch} of {best.run}, seed {recipe.train.seed}.",
        *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sweep.sentences),
        "Evaluate it on the test split, which no trial has used.",
        *([command] if argv else []),
        "Varied:",
        *(f"  {varied.key}={varied.text}" for varied in sweep.space),
    ]
    lines = ("# " + "".join(letter if letter.isprintable() else "?" for letter in line) for line in header)
    return "\n".join(lines) + "\n" + yaml_file.dump(recipe)


def _draw(sweep: Sweep, path: Path) -> None:
    from dlkit.plots.parallel_coordinates import TrialLine, parameter_axis, write_parallel

    parameters = [
        parameter_axis(varied, all(varied.key in trial.parameters for trial in sweep.trials)) for varied in sweep.space
    ]
    trials = [
        TrialLine(
            [search_space.named(varied, trial.parameters) for varied in sweep.space],
            trial.value,
            trial.state == FINISHED,
        )
        for trial in reversed(sweep.ranked)
    ]
    title = f"{sweep.recipe.model.name} on {sweep.recipe.data.name}: {len(trials)} trials"
    write_parallel(
        parameters, trials, title, sweep.recipe.train.monitor, path, lower_is_better=lower_is_better(sweep.recipe)
    )

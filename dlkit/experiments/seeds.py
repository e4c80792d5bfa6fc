"""One recipe under several seeds: its mean result, and the variance over seeds.

A group is a folder of run folders, `seed0`, `seed1`, …, with recipe.yaml and seeds.json. The same command continues
where it stopped, and can request more seeds. Groups are compared by `dlkit runs compare GROUP --against GROUP`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit import documents, statistics
from dlkit.config.resolve import with_changes
from dlkit.config.schema import Recipe
from dlkit.errors import DivergedError, UsageError
from dlkit.experiments import trainings
from dlkit.experiments.trainings import Say
from dlkit.runs.run_folder import RunFolder

SCHEMA = "dlkit.seeds/1"
MAX_SEEDS = 1000


@dataclass(frozen=True)
class SeedGroup:
    """The runs of a recipe under several seeds, and the best monitored metric of each; None if it diverged."""

    folder: Path
    recipe: Recipe
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    resolution: float = 0.0  # the step of the metric

    @property
    def estimate(self) -> statistics.Estimate | None:
        """The mean and Student's 95 % interval over the seeds; None for fewer than two."""
        values = [value for value in self.values if value is not None]
        return statistics.student(values, self.resolution) if len(values) > 1 else None

    def document(self) -> dict[str, Any]:
        """The JSON form, `dlkit.seeds/1`."""
        estimate = self.estimate
        return {
            "schema": SCHEMA,
            "group": self.folder.name,
            "run": str(self.folder),
            "model": self.recipe.model.name,
            "dataset": self.recipe.data.name,
            "metric": self.recipe.train.monitor,
            "runs": [
                {"run": run_name(seed), "seed": seed, "value": value}
                for seed, value in zip(self.seeds, self.values, strict=True)
            ],
            "mean": None if estimate is None else estimate.value,
            "low": None if estimate is None else estimate.low,
            "high": None if estimate is None else estimate.high,
        }


def run_name(seed: int) -> str:
    """seed3."""
    return f"seed{seed}"


def default_name(recipe: Recipe) -> str:
    """seeds-lenet5-mnist."""
    return f"seeds-{recipe.model.name.replace('/', '-')}-{recipe.data.name}"


def train_seeds(
    recipe: Recipe,
    seeds: int,
    *,
    name: str | None = None,
    runs_dir: Path | str = "runs",
    retrain: bool = False,
    argv: Sequence[str] = (),
    say: Say = lambda text: None,
    progress: bool = False,
) -> SeedGroup:
    """Train a recipe under `seeds` seeds, starting with its own; includes further existing ones.

    Raises:
        UsageError: the folder has another recipe, or runs of other packages. DataError: the data has changed.
        DivergedError: no training finished. StoppedError and other errors of train: call again to continue.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(f"--seeds {seeds} is out of range. Use a number of trainings from 1 to {MAX_SEEDS}.")
    recipe = trainings.resolve_weights(recipe, Path(runs_dir))
    folder = Path(runs_dir) / (name or default_name(recipe))
    trainings.open_folder(folder, recipe, "group of seeds")
    say(f"group: {folder}")
    with RunFolder(folder).locked():
        first = recipe.train.seed
        while trainings.state_of(RunFolder(folder / run_name(first + seeds))) != trainings.NOT_STARTED:
            seeds += 1
        plan = [(RunFolder(folder / run_name(seed)), seed) for seed in range(first, first + seeds)]
        recipes = {seed: with_changes(recipe, {"train.seed": seed}) for _, seed in plan}
        trainings.check_comparable([(run, recipes[seed]) for run, seed in plan], retrain=retrain, say=say)
        values = list[float | None]()
        for number, (run, seed) in enumerate(plan, start=1):
            title = f"training {number} of {len(plan)}, seed {seed}"
            try:
                trainings.finish(run, recipes[seed], title, argv=argv, say=say, progress=progress)
                values.append(float(run.info()["best"]["value"]) if run.info().get("best") else None)
            except DivergedError as error:
                say(f"warning: {title}: {error}")
                values.append(None)
            done = tuple(seed for _, seed in plan[:number])
            group = SeedGroup(folder, recipe, done, tuple(values), trainings.resolution(run))
            documents.write(folder / "seeds.json", group.document())
    if not any(value is not None for value in values):
        raise DivergedError(f"none of the {seeds} trainings in {folder} finished. Lower the learning rate.")
    return group

"""What makes a run the same run, as run.json says it: its recipe, its data, its machine; and whether they still are."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from dlkit.config.schema import Recipe
from dlkit.data import fingerprint
from dlkit.errors import DataError, ModelFileError
from dlkit.runs import provenance
from dlkit.runs.run_folder import RunFolder
from dlkit.training import precision
from dlkit.training.checkpoint import Checkpoint
from dlkit.training.inputs import Prepared, Say
from dlkit.training.loop import Run

FOR_THE_SAME_BITS = ("torch", "threads", "device", "world_size", "precision")  # other than these cannot be resumed

Info = Mapping[str, Any]  # run.json


def identity(recipe: Recipe, data: Prepared, run: Run) -> dict[str, Any]:
    """What run.json says of the recipe, the data, the weights at the start, and the machine."""
    return {
        "model": recipe.model.name,
        "dataset": recipe.data.name,
        "seed": recipe.train.seed,
        "device": run.device.type,
        "device_name": precision.describe(run.device),
        "threads": torch.get_num_threads(),
        "world_size": run.world.size,
        "precision": str(run.dtype or torch.float32).removeprefix("torch."),
        "versions": provenance.versions(),
        "platform": platform.platform(),
        "hardware": provenance.hardware(),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "weights_sha256": provenance.weights_sha256(run.model, run.averaged),
        "data": {name: {"samples": len(part), "sha256": data.fingerprints[name]} for name, part in data.splits.items()},
        "left_out": dict(data.left_out),
        "spec": data.spec.to_json(),
        "recipe": recipe.model_dump(mode="json"),
        "inexact": False,
    }


def changed_settings(info: Info, recipe: Recipe) -> list[provenance.Difference]:
    """The settings that are not those which run.json was written with."""
    if "recipe" not in info:  # a run of an older dlkit
        return []
    before = Recipe.model_validate_json(json.dumps(info["recipe"]))  # with the defaults of keys that came later
    return provenance.recipe_differences(before.model_dump(mode="json"), recipe.model_dump(mode="json"))


def same_data(folder: RunFolder, info: Info, data: Prepared) -> None:
    """Refuse to go on with other data than the run began with."""
    for name, sha256 in data.fingerprints.items():
        before = info["data"].get(name, {})
        if before.get("sha256") != sha256:
            count, known = len(data.splits[name]), str(before.get("sha256"))[:12]
            told = f"{before.get('samples')} samples, SHA-256 {known}…; now {count}, {sha256[:12]}…"
            told = fingerprint.describe_changes(changed_files(folder, data)) or told
            raise DataError(
                f"the {name} split is not what this run began with ({told}). Put it back, or train a new run."
            )


def changed_files(folder: RunFolder, data: Prepared) -> list[fingerprint.FileChange]:
    """How the files of the data differ from those that a run noted, where it noted any."""
    if not (folder.data_files.is_file() and data.files):
        return []
    return fingerprint.changes(fingerprint.read_files(folder.data_files), data.files)


def same_log(folder: RunFolder, found: Checkpoint, inexact: bool, say: Say) -> bool:
    """Whether metrics.jsonl still begins with the lines that were written before the checkpoint; else refused."""
    if found.metrics is None or folder.metrics_digest(found.metrics["lines"]) == found.metrics:
        return True
    told = f"{folder.metrics_file} is damaged: its lines are not those that were written before step {found.step:,}"
    if not inexact:
        raise ModelFileError(f"{told}. Put back a copy of it; the weights are intact, and --inexact goes on with them.")
    say(f"warning: {told}; going on, as the weights are intact")
    return False


def same_machine(before: Info, now: Info, inexact: bool, say: Say) -> bool:
    """Whether bits may differ from here on; refused unless the caller said so."""
    found = provenance.environment_differences(before, now)
    told = ", ".join(str(difference) for difference in found if difference.name in FOR_THE_SAME_BITS)
    if told and not inexact:
        raise ModelFileError(f"this run cannot go on bit for bit: {told}. --inexact goes on all the same.")
    if told:
        say(f"warning: going on inexactly: {told}")
    return bool(told)

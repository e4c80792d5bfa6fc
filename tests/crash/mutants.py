"""Layer 7: dlkit broken on purpose, one protocol step or part of the state at a time; the suite must notice each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crash import kills, mutations, power
from crash.gold import run_or_resume
from crash.trials import in_child
from dlkit import atomic_io, documents
from dlkit.runs import manifest
from dlkit.training import checkpoint, state
from dlkit.training.loop import Run

Layer = Callable[[Path, str], object]


def mutants(work: Path, gold: str, count: int | None = None) -> str:
    """Break the code in a child and run the layer that must see it; a mutant that survives is an error."""
    chosen = list(MUTANTS.items())[:: 1 if count is None else -(-len(MUTANTS) // count)]
    survivors = []
    for name, (break_code, layer) in chosen:
        place = work / "mutant"
        place.mkdir()

        def trial(break_code: Callable[[], None] = break_code, layer: Layer = layer, place: Path = place) -> None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the layer reports is expected
            break_code()
            layer(place, gold)

        if in_child(trial) == 0:
            survivors.append(name)
        shutil.rmtree(place)
    assert not survivors, f"mutants that survive: {survivors}"
    return f"{len(chosen)} of {len(MUTANTS)} mutants of the code: all noticed"


def points_of(*trials: tuple[str, int]) -> Layer:
    def layer(work: Path, gold: str) -> None:
        for name, number in trials:
            kills.kill_once(work, name, number, gold)

    return layer


def power_loss(work: Path, gold: str) -> object:
    return power.losses(work)


def changed_documents(work: Path, gold: str) -> None:
    """An edited best value in the newest manifest is noticed, or the run ends with it."""
    stopped = mutations.stop_before_the_end(work)
    expected = mutations.finished(work, stopped)
    newest = max((stopped / "gold" / "checkpoints").glob("*.json"))
    document = json.loads(newest.read_text())
    document["state"]["best"]["value"] = 9.0
    newest.write_text(json.dumps(document))
    run_or_resume(stopped)
    assert mutations.weights(stopped) == expected


def resumes(work: Path, gold: str) -> None:
    """Kills early, in the middle and late: what a missing part of the state changes may show at one of them only."""
    points_of(("step", 5), ("step", 14), ("step", 20), ("step", 23))(work, gold)


class WithoutFileSync:
    """The os module, but that files are not synced."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.fsync(descriptor)


def no_file_sync() -> None:
    atomic_io.os = WithoutFileSync()


def no_folder_sync() -> None:
    atomic_io.sync_folder = lambda folder: None


def written_in_place() -> None:
    def write(path: Path, data: bytes | memoryview) -> None:
        with getattr(atomic_io, "open", open)(path, "wb") as file:
            atomic_io.point("mid_write")
            file.write(bytes(data))
            atomic_io.point("before_fsync")
            os.fsync(file.fileno())
        atomic_io.sync_folder(path.parent)

    atomic_io.write_bytes = write


def manifest_before_payload() -> None:
    write_bytes, write = atomic_io.write_bytes, manifest.write
    payloads: list[tuple[Path, Any]] = []

    def postponed(path: Path, data: bytes | memoryview) -> None:
        payloads.append((path, data)) if path.suffix == ".safetensors" else write_bytes(path, data)

    def first(folder: Path, content: Any) -> None:
        write(folder, content)
        write_bytes(*payloads.pop())

    atomic_io.write_bytes, manifest.write = postponed, first


def pruned_before_saved() -> None:
    save = checkpoint.save

    def pruned(folder: Path, run_id: str, step: int, *rest: Any) -> None:
        for old in manifest.saved_steps(folder):
            manifest.manifest_path(folder, old).unlink()
        save(folder, run_id, step, *rest)

    checkpoint.save = pruned


def no_document_digest() -> None:
    read = documents.digest
    documents.digest = lambda document: document.get("digest", "") or read(document)
    documents.opened = lambda content, schema=None: _without_digest(documents.parsed(content))


def _without_digest(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return {key: value for key, value in document.items() if key not in ("digest", "integrity")}


def oldest_is_newest() -> None:
    _resorted(lambda folder, steps: sorted(steps, reverse=True))


def newest_by_time() -> None:
    def by_time(folder: Path, steps: list[int]) -> list[int]:
        for step in steps:  # a copy or a backup leaves other times
            os.utime(manifest.manifest_path(folder, step), (2e9 - step, 2e9 - step))
        return sorted(steps, key=lambda step: manifest.manifest_path(folder, step).stat().st_mtime)

    _resorted(by_time)


def sorted_as_text() -> None:
    _resorted(lambda folder, steps: sorted(steps, key=str))


def _resorted(order: Callable[[Path, list[int]], list[int]]) -> None:
    saved_steps = manifest.saved_steps
    checkpoint.saved_steps = lambda folder: order(folder, saved_steps(folder))


def without(key: str, value: Any) -> Callable[[], None]:
    """A part of the plain state is not saved: it is what a new run has."""

    def break_code() -> None:
        values = state.values
        state.values = lambda run: {**values(run), key: value}

    return break_code


def without_tensors(prefix: str) -> Callable[[], None]:
    """Tensors are saved as zeros, or as the model's own in place of the average."""

    def break_code() -> None:
        tensors = state.tensors

        def saved(run: Run) -> dict[str, Tensor]:
            found = tensors(run)
            for name in found:
                if prefix in name:
                    own = found.get(name.replace("ema/", "model/"))
                    found[name] = own if prefix == "ema/" and own is not None else torch.zeros_like(found[name])
            return found

        state.tensors = saved

    return break_code


WINDOW = {"loss": 0.0, "correct": 0, "samples": 0}
MUTANTS: dict[str, tuple[Callable[[], None], Layer]] = {
    "files are not synced": (no_file_sync, power_loss),
    "folders are not synced": (no_folder_sync, power_loss),
    "files are written in place": (written_in_place, power_loss),
    "the manifest is written before the payload": (manifest_before_payload, power_loss),
    "old checkpoints go before the new one is saved": (pruned_before_saved, points_of(("mid_write", 20))),
    "digests of documents are not compared": (no_document_digest, changed_documents),
    "the oldest checkpoint counts as the newest": (oldest_is_newest, points_of(("step", 23))),
    "the newest file counts as the newest checkpoint": (newest_by_time, points_of(("step", 23))),
    "steps are sorted as text": (sorted_as_text, points_of(("step", 11), ("step", 14))),
    "the best epoch is not saved": (without("best", None), resumes),
    "the epochs since the best are not saved": (without("stale", 0), resumes),
    "the count of log lines is not saved": (without("metrics_lines", 0), resumes),
    "the sums not yet logged are not saved": (without("window", WINDOW), resumes),
    "the finished epochs are not saved": (without("epochs_done", 0), resumes),
    "the average of the weights is not saved": (without_tensors("ema/"), resumes),
    "first moments are not saved": (without_tensors("exp_avg"), resumes),
    "step counts of the optimizer are not saved": (without_tensors("/step"), resumes),
    "running means are not saved": (without_tensors("running_mean"), resumes),
}

"""Random changes of a run's documents: each is detected, or the run still ends with the weights of an unchanged one."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from crash.gold import run_or_resume
from crash.trials import in_child, kill_at
from dlkit import atomic_io
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint

REFUSED = 5  # exit code


def documents(work: Path, gold: str, count: int = 2000) -> str:
    """Change a manifest, run.json, metrics.jsonl or recipe.yaml of a stopped run, resume it, and look at the end."""
    stopped = stop_before_the_end(work)
    expected = finished(work, stopped)
    draw, counts = random.Random(0), {"refused": 0, "warned": 0, "harmless": 0}
    for trial in range(count):
        outcome = resume_changed(work, stopped, draw, expected, trial)
        counts[outcome] += 1
    return f"{count} changed documents (seed 0): " + ", ".join(f"{n} {name}" for name, n in counts.items())


def stop_before_the_end(work: Path) -> Path:
    """A run folder as a kill in its last epoch leaves it."""

    def die() -> None:
        atomic_io.hook = kill_at("step", 23)
        run_or_resume(work / "stopped")

    in_child(die)
    return work / "stopped"


def finished(work: Path, stopped: Path) -> str:
    shutil.copytree(stopped, work / "unchanged", symlinks=True)
    assert in_child(lambda: run_or_resume(work / "unchanged")) == 0
    return weights(work / "unchanged")


def weights(runs_dir: Path) -> str:
    """The digests of the weights of all epochs, as the log and the newest checkpoint have them."""
    run = RunFolder(runs_dir / "gold")
    newest = checkpoint.newest(run.checkpoints, run.info()["run_id"], lambda text: None)
    log = [line.get("weights_sha256") for line in run.metrics()]
    return repr((log, newest.state, sorted((name, t.double().sum().item()) for name, t in newest.tensors.items())))


def resume_changed(work: Path, stopped: Path, draw: random.Random, expected: str, trial: int) -> str:
    runs_dir, said = work / "changed", work / "said"
    shutil.rmtree(runs_dir, ignore_errors=True)
    shutil.copytree(stopped, runs_dir, symlinks=True)
    run = runs_dir / "gold"
    paths = [*sorted(run.glob("checkpoints/*.json")), run / "run.json", run / "metrics.jsonl", run / "recipe.yaml"]
    path = draw.choice(paths)
    before = path.read_bytes()
    path.write_bytes(changed(before, draw))
    what = f"trial {trial}, {path.name}: {difference(before, path.read_bytes())}"

    def go_on() -> None:
        lines: list[str] = []
        try:
            run_or_resume(runs_dir, lines.append)
        finally:
            said.write_text("\n".join(lines))

    code = in_child(go_on, loud=False)
    if code == REFUSED or (path.name == "recipe.yaml" and code in (2, 4)):  # a recipe, or where its data is
        return "refused"
    assert code == 0, f"{what}: ended with {code}"
    if path.name == "recipe.yaml" and "recipe.yaml was edited" in said.read_text():
        return "warned"  # of a setting that may change, such as the number of epochs
    assert weights(runs_dir) == expected, f"{what}: accepted, and it ended with other weights"
    return "warned" if "warning: " in said.read_text() else "harmless"


def changed(content: bytes, draw: random.Random) -> bytes:
    """A flipped bit, a cut, deleted bytes, another number, or a deleted key."""
    at, kind = draw.randrange(len(content)), draw.choice(("flip", "flip", "cut", "delete", "number", "key"))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "delete":
        return content[:at] + content[at + draw.randrange(1, 40) :]
    if kind == "number":
        digits = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
        index = draw.choice(digits)
        return content[:index] + str(draw.randrange(10)).encode() + content[index + 1 :]
    try:
        document = json.loads(content)
        inner = [value for value in document.values() if value and isinstance(value, dict)]
        section = document if draw.random() < 0.5 else draw.choice(inner)
        del section[draw.choice(list(section))]
        return json.dumps(document).encode()
    except (ValueError, IndexError):  # not one JSON document
        lines = content.splitlines(keepends=True)
        del lines[draw.randrange(len(lines))]
        return b"".join(lines)


def difference(before: bytes, after: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    return f"byte {at}: {before[max(0, at - 30) : at + 20]!r} -> {after[max(0, at - 30) : at + 20]!r}"

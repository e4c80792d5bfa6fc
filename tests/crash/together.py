"""Layer 6: two processes at one run: a second trainer, a reader while checkpoints are pruned, and two ranks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from crash.gold import SETTINGS, digest, quiet, run_or_resume
from crash.kills import clear
from crash.trials import fork, in_child, kill_at
from dlkit import atomic_io
from dlkit.errors import BusyError
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint

RANK_LOST_S = 30.0


def processes(work: Path, gold: str, count: int = 50) -> str:
    """While one trains: a second is told that the run is busy, and a reader never sees half a checkpoint."""
    reads, busy, trainings = 0, 0, 0
    run = RunFolder(work / "trial" / "gold")
    while reads < count:
        pid = fork(lambda: run_or_resume(work / "trial"))
        trainings += 1
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if not run.path.exists():
                time.sleep(0.001)
                continue
            found = checkpoint.newest(run.checkpoints, run.info()["run_id"], lambda text: fail(text))
            assert found.tensors
            reads += 1
            if reads % 10 == 0 and run.status() == "running":
                code = in_child(lambda: run_or_resume(work / "trial"), loud=False)
                assert code in (0, BusyError.exit_code), f"a second trainer ended with {code}"  # 0: the first was done
                busy += code == BusyError.exit_code
        assert digest(run) == gold
        clear(work)
    assert busy, "no second trainer met the first"
    return (
        f"{reads} reads during {trainings} trainings saw whole checkpoints; {busy} second trainers ended with exit 11"
    )


def fail(text: str) -> None:
    raise AssertionError(f"a reader saw: {text}")


def ranks(work: Path, gold: str, count: int = 4) -> str:
    """Two ranks; one is killed during a step or during a save. The other ends, and both resume to the same bits."""
    expected = two_ranks(work / "clean", [None, None])
    trials = [(0, "step", 10), (1, "step", 10), (0, "mid_write", 15), (0, "after_fsync", 12)]
    for rank, name, number in trials[:count]:
        plans = [f"{name} {number}" if one == rank else None for one in range(2)]
        codes = two_ranks(work / "killed", plans, check=False)
        what = f"rank {rank} killed at {name} {number}"
        assert codes.startswith("[") and str(-signal.SIGKILL) in codes, f"{what}: {codes}"
        assert str([0, 0]) != codes, what
        ended = two_ranks(work / "killed", [None, None])
        assert ended == expected, f"{what}: ended otherwise"
        subprocess.run(["rm", "-rf", str(work / "killed")], check=True)
    return f"{min(count, len(trials))} kills of one of two ranks, in a step and in a save: resumed to the same bits"


def two_ranks(runs_dir: Path, plans: list[str | None], *, check: bool = True) -> str:
    """Train in two processes, each with the point at which it is to die; the digest, or the exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "crash.together", str(runs_dir), *([plan] if plan else [])], stderr=subprocess.PIPE,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=Path(__file__).parent.parent,
        )
        for rank, plan in enumerate(plans)
    ]  # fmt: skip
    killed = next((process for process, plan in zip(started, plans, strict=True) if plan), None)
    if killed is not None:
        killed.communicate(timeout=120)
    errors = [process.communicate(timeout=RANK_LOST_S if killed else 120)[1].decode() for process in started
              if process is not killed]  # fmt: skip
    codes = [process.returncode for process in started]
    if not check:
        return str(codes)
    assert codes == [0, 0], f"{codes}: {errors}"
    return digest(RunFolder(runs_dir / "gold"))


def main(runs_dir: str, plan: str = "") -> None:
    """One rank."""
    import torch

    from crash.gold import use_small_model

    torch.set_num_threads(1)
    atomic_io.CHUNK = 16 * 1024
    use_small_model()
    SETTINGS.update({"data.validation": 0.2})
    if plan:
        atomic_io.hook = kill_at(plan.split()[0], int(plan.split()[1]))
    run_or_resume(Path(runs_dir), quiet)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Tiny trainings that several test files share, and what of two runs must be equal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

import dlkit
from dlkit.runs.run_folder import RunFolder
from dlkit.training import checkpoint

TINY = {"data.options.train": 80, "data.options.test": 8, "model.options.hidden": "16", "train.threads": 1}


def tiny(runs_dir: Path, name: str = "a", **settings: object) -> RunFolder:
    chosen = {**TINY, "train.epochs": 2, "train.batch_size": 16, **settings}
    return dlkit.train("mlp", dataset="shapes", settings=chosen, name=name, runs_dir=runs_dir)


def weights(run: RunFolder) -> dict[str, Tensor]:
    return checkpoint.newest(run.checkpoints, run.info()["run_id"], str).tensors


def same_bits(one: RunFolder, other: RunFolder) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def in_two_processes(one: RunFolder) -> RunFolder:
    """The run of the same recipe in two gloo processes, beside it."""
    command = [
        sys.executable, "-m", "dlkit_cli", "train", "--recipe", str(one.path / "recipe.yaml"),
        "--name", "two", "--runs-dir", str(one.path.parent),
    ]  # fmt: skip
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return RunFolder(one.path.parent / "two")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Two ranks take the step that one process takes: torch's threaded process group, no other process."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_training import TINY
from torch import Tensor
from torch.testing._internal.distributed import multi_threaded_pg

from dlkit.config.resolve import resolve
from dlkit.training import assembly, inputs, loop
from dlkit.training.distributed import World

SETTINGS = {
    **TINY, "optimizer.name": "sgd", "optimizer.lr": 0.05, "train.batch_size": 15, "loss.label_smoothing": 0.2,
    "regularizers.l2.strength": 0.5,
}  # fmt: skip


def trained(world: World) -> tuple[loop.Run, dict[str, float] | None]:
    """A run after three steps, and its validation."""
    made = resolve("mlp", "shapes", flags=SETTINGS).recipe
    data = inputs.prepare(made, str)
    model, scratch = assembly.begin(made, data, None, str)
    run = assembly.assemble(made, data, torch.device("cpu"), world, model, scratch, Path(), str)
    training, validation = assembly.batches(run, made, data)
    run.model.train()
    for _, batch in zip(range(3), training.epoch(0), strict=False):
        loop.train_step(run, batch)
    assert validation is not None
    return run, loop.validate(run, validation(), lambda: 0)


def in_two_ranks() -> list[tuple[loop.Run, dict[str, float] | None]]:
    """What `trained` returns on each of two ranks."""
    store, results = dist.HashStore(), dict[int, tuple[loop.Run, dict[str, float] | None]]()
    serial, begun = threading.Lock(), threading.Barrier(2)  # the first weights, and each step, draw from one stream

    def rank(number: int) -> None:
        dist.init_process_group("threaded", rank=number, world_size=2, store=store)
        results[number] = trained(World(number, 2, number))
        dist.destroy_process_group()

    original = assembly.begin

    def begin(*arguments: object) -> object:
        with serial:
            result = original(*arguments)  # type: ignore[arg-type]
        begun.wait(120)
        return result

    multi_threaded_pg._install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    assembly.begin = begin  # type: ignore[assignment]
    try:
        threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        assembly.begin = original
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        multi_threaded_pg._uninstall_threaded_pg()
    return [results[number] for number in range(2)]


def test_two_ranks_take_the_steps_of_one_process_and_validate_alike() -> None:
    """Gradients are summed over ranks, a penalty counts once, and val/loss is of all samples."""
    one, validation = trained(World())
    for run, results in in_two_ranks():
        expected: dict[str, Tensor] = one.model.state_dict()
        for name, weight in run.model.state_dict().items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)
        assert run.window.loss == pytest.approx(one.window.loss, rel=1e-4)
        assert run.window.samples == one.window.samples == 45 and run.window.correct == one.window.correct
        assert results == pytest.approx(validation, rel=1e-5)

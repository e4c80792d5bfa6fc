"""A rank that loses the other in any collective ends with one line and exit 10: two real gloo groups in two threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed import multi_threaded_pg

from dlkit.errors import UsageError, WorkerLostError
from dlkit.training import distributed
from dlkit.training.distributed import World, joined

COLLECTIVES: dict[str, Callable[[World], object]] = {
    "sum_": lambda world: world.sum_(torch.ones(3)),
    "sum_gradients_": lambda world: world.sum_gradients_([torch.ones(3), torch.ones(2, 2)]),
    "share_buffers_": lambda world: world.share_buffers_(nn.BatchNorm1d(3)),
    "same": lambda world: world.same("a name"),
    "wait": lambda world: world.wait(),
}


@contextmanager
def a_world_per_thread() -> Iterator[None]:
    multi_threaded_pg._install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)
    try:
        yield
    finally:
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        multi_threaded_pg._uninstall_threaded_pg()


def error_without(act: Callable[[World], object], rank: int, *, silent: bool) -> BaseException | None:
    """What a collective raises on rank `rank` after the other rank took part once, then left or stayed silent."""
    store, errors, left = dist.HashStore(), list[BaseException](), threading.Event()
    done = threading.Event()

    def body(number: int) -> None:
        timeout = timedelta(seconds=0.5 if silent else 60)
        dist.init_process_group("gloo", rank=number, world_size=2, store=store, timeout=timeout)
        try:
            act(World(number, 2, number))
            if number == rank:
                assert silent or left.wait(120)
                act(World(number, 2, number))
            elif silent:
                done.wait(120)
        except BaseException as error:
            errors.append(error)
        finally:
            dist.destroy_process_group()
            (done if number == rank else left).set()

    threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    (error,) = errors
    return error


@pytest.mark.parametrize(
    ("name", "rank", "silent"),
    [(name, rank, False) for name in COLLECTIVES for rank in (0, 1)] + [(name, 1, True) for name in ("sum_", "same")],
)
def test_every_collective_reports_a_lost_rank_in_one_line(name: str, rank: int, silent: bool) -> None:
    with a_world_per_thread():
        error = error_without(COLLECTIVES[name], rank, silent=silent)
    assert isinstance(error, WorkerLostError) and error.exit_code == 10, error
    assert str(error).startswith(f"rank {rank} lost another rank: ") and "\n" not in str(error)
    assert "/" not in str(error) and str(error).isascii() and "--resume" in str(error)


def test_a_rank_that_nobody_joins_and_a_missing_address_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="torchrun"), joined(World(0, 2), torch.device("cpu")):
        pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(seconds=0.5))
    with pytest.raises(WorkerLostError, match="rank 0 lost another rank: "), joined(World(0, 2), torch.device("cpu")):
        pass


def test_ranks_talk_through_world_alone() -> None:
    """So that no collective escapes the translation of its errors."""
    root = Path(distributed.__file__).parents[1]
    users = [path for path in root.rglob("*.py") if "torch.distributed" in path.read_text()]
    assert users == [Path(distributed.__file__)]

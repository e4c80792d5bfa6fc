"""One process or several: rank and world size from torchrun's environment, and the sums that ranks share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlkit.errors import UsageError, WorkerLostError

TIMEOUT = timedelta(seconds=120)


@dataclass(frozen=True)
class World:
    """This process's place among all; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Rank 0 alone speaks and writes."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place."""
        if self.size > 1:
            with self._others():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients_(self, gradients: Sequence[Tensor]) -> None:
        """Add gradients up over all ranks, in place, in one message."""
        if self.size > 1:
            flat = self.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def share_buffers_(self, model: nn.Module) -> None:
        """Give every rank rank 0's buffers: the running statistics of batch norm are each rank's own."""
        if self.size > 1:
            with self._others():
                for buffer in model.buffers():
                    dist.broadcast(buffer, 0)

    def same(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        box = [text]
        if self.size > 1:
            with self._others():
                dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            with self._others():
                dist.barrier()

    @contextmanager
    def _others(self) -> Iterator[None]:
        """Around everything that ranks do together.

        Raises:
            WorkerLostError: another rank died, failed, or did not answer within TIMEOUT.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, EOFError) as error:
            text = re.sub(r"^\[[^\]]*\] ", "", str(error).split("\n")[0])  # without the name of a source file
            reason = text.split(". ")[0].rstrip(".")
            raise WorkerLostError(
                f"rank {self.rank} lost another rank: {reason}. Start all ranks again, with --resume if there is a run."
            ) from error


def world_of_environment() -> World:
    """What torchrun says in RANK, WORLD_SIZE and LOCAL_RANK."""
    try:
        rank, size, local_rank = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}.") from error
    if not 0 <= rank < size:
        raise UsageError(f"RANK={rank} is not below WORLD_SIZE={size}.")
    return World(rank, size, local_rank)


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[World]:
    """The process group, for as long as the block runs: gloo on CPU, nccl on CUDA."""
    if world.size == 1:
        yield world
        return
    if os.environ.get("MASTER_ADDR", "127.0.0.1") in ("localhost", "127.0.0.1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no port open to other machines
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        with world._others():
            dist.init_process_group(backend, rank=world.rank, world_size=world.size, timeout=TIMEOUT)
    except ValueError as error:
        raise UsageError(f"the ranks cannot meet: {error}. Start them with torchrun.") from error
    try:
        yield world
    finally:
        with suppress(RuntimeError):  # the others may be gone
            dist.destroy_process_group()

"""The ranks of one node that hold one model together, and what they say to each other.

All of them run the same lines in lockstep: every call here is made by each of them, in the same
order. One that dies ends the others: gloo notices the closed connection at once, NCCL's watchdog
after TIMEOUT; the launcher mostly kills them before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from scalesweep.rendezvous import rendezvous

TIMEOUT = timedelta(minutes=30)
"""One waits for another, which may read 100 GB from a slow file system meanwhile."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Replica:
    """As one of its ranks sees it; alone, it says nothing to anybody."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        return self.rank == self.size - 1

    def share(self, tensor: Tensor, *, owner: int) -> Tensor:
        """The owner's tensor, on all ranks; the others give one of its shape and type to fill."""
        if self.size > 1:
            tensor = tensor.contiguous()
            dist.broadcast(tensor.view(torch.uint8), src=owner)  # gloo knows few types
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        if self.size == 1:
            return flag
        found = torch.tensor([flag], dtype=torch.uint8, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return bool(found.item())

    def of_first(self, value: T) -> T:
        """The first rank's value, on all ranks; it is pickled."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]


def join(file: Path, *, rank: int, size: int, device: torch.device) -> Replica:
    """Meet the other ranks of a replica, once per process.

    file: in a folder that all of them see, of this replica and attempt alone.
    """
    if size > 1 and not dist.is_initialized():
        store = rendezvous(file, rank=rank, world_size=size, address="127.0.0.1")
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
            device_id=device if on_gpu else None,
        )
    return Replica(rank=rank, size=size, device=device)

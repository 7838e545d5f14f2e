"""Several processes that train one network together, as `torchrun` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import distributed as dist

_PATIENCE = timedelta(minutes=30)
"""How long one process waits for the others, which may be measuring or writing."""


class Processes(NamedTuple):
    """This process among all."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that measures, writes and speaks."""
        return self.rank == 0


@contextmanager
def joined_processes(device: str) -> Iterator[tuple[Processes, str]]:
    """Joins the group that `torchrun` has started; alone without it.

    Gives this process's place, and the device it works on: with NCCL each its own GPU, with gloo
    the CPU.
    """
    if "RANK" not in os.environ or not dist.is_available():
        yield Processes(), device
        return
    on_gpu = device.partition(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    else:
        device = "cpu"
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


def any_of_them(wish: bool, processes: Processes, device: torch.device) -> bool:
    """Whether the wish holds in at least one process; all must ask at the same time."""
    if processes.world == 1:
        return wish
    votes = torch.tensor(float(wish), device=device)
    dist.all_reduce(votes)
    return bool(votes > 0)


def wait_for_all(processes: Processes) -> None:
    """Returns when every process has come here."""
    if processes.world > 1:
        dist.barrier()

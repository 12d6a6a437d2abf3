"""One training in several processes, as torchrun starts them: they share the passes of each step.

A step is the same whoever computes it: gradients are summed over its passes, not averaged over processes. So a model
doesn't depend, save for rounding, on how many processes trained it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pathpipe.errors import PathpipeError, SettingsError, StoreError

_apart = threading.Event()  # set once a process has failed alone


@dataclass(frozen=True)
class Group:
    """The processes of one training; by itself one process alone.

    Attributes:
        rank: Of this process, from 0, which leads: it alone writes.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Sum the gradients of all processes, in one message; returns the summed loss.

        A parameter that no process has a gradient of keeps none.
        """
        if self.size == 1:
            return loss
        parameters = [p for p in model.parameters() if p.requires_grad]
        touched = torch.tensor([p.grad is not None for p in parameters] or [False], dtype=loss.dtype)
        flat = [loss.reshape(1), touched.to(loss.device)]
        flat += [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).to(loss.dtype) for p in parameters]
        message = self.sum(torch.cat(flat))
        total, counts, *grads = message.split([1, len(touched), *(p.numel() for p in parameters)])
        for p, count, grad in zip(parameters, counts.tolist(), grads, strict=False):
            p.grad = grad.view_as(p).to(p.dtype) if count else None
        return total.squeeze(0)

    def share_buffers(self, model: nn.Module) -> None:
        """What a model remembers of its bags becomes the leader's."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def share_start(self, model: nn.Module) -> None:
        """Where a model starts becomes where the leader's does: its first bags may have moved it (k-means)."""
        if self.size > 1:
            for parameter in model.parameters():
                dist.broadcast(parameter.detach(), 0)
            self.share_buffers(model)

    def tell(self, message: object = None) -> object:
        """What the leader says, heard by all."""
        said = [message]
        if self.size > 1:
            dist.broadcast_object_list(said, 0)
        return said[0]


def processes_of_torchrun() -> int:
    """Number of processes that torchrun started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def joined_group() -> Group:
    """This process's group; joined when first asked for.

    Raises:
        SettingsError: torchrun's variables are incomplete.
        StoreError: A failure in one process alone has left the others behind.
    """
    size = processes_of_torchrun()
    if size == 1:
        return Group()
    if _apart.is_set():
        raise StoreError("the processes of torchrun have lost each other", hint="run the same command again")
    if not dist.is_initialized():
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise SettingsError(f"WORLD_SIZE is {size}, but {missing[0]} is not set", hint="start it with torchrun")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        # the others wait while the leader makes what comes before training
        dist.init_process_group(backend, timeout=timedelta(days=7))
    return Group(dist.get_rank(), dist.get_world_size())


@contextmanager
def in_step() -> Iterator[None]:
    """Work that all processes do together: what one of them fails in alone ends it for all.

    A `PathpipeError` comes of settings and data, which are everyone's: all meet it at the same place.
    """
    together = False
    try:
        yield
        together = True
    except PathpipeError:
        together = True
        raise
    finally:
        if not together:
            _apart.set()


def dismiss() -> bool:
    """The leader has no more to do; whether the others could be told. If not, torchrun ends them as this one fails."""
    if not _apart.is_set():
        joined_group().tell(None)
        dist.destroy_process_group()
    return not _apart.is_set()


def local_device(asked: str) -> str:
    """The device of this process: with several on one machine, each takes the GPU of its local rank.

    Raises:
        SettingsError: One GPU is named, and several processes of this machine would share it.
    """
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if asked.startswith("cuda:") and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            f"all processes of this machine would share {asked}",
            where="--device",
            hint="leave it out, and each takes a GPU of its own; CUDA_VISIBLE_DEVICES says which there are",
        )
    if processes_of_torchrun() == 1 or asked not in ("auto", "cuda") or not torch.cuda.is_available():
        return asked
    return f"cuda:{rank % torch.cuda.device_count()}"

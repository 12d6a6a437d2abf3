"""Following: what torchrun's other processes do: they take part in each training that the first one leads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pathpipe.errors import PathpipeError, StoreError
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.stage import Job


def is_follower() -> bool:
    """Whether torchrun started this process beside another that leads."""
    return int(os.environ.get("RANK", "0")) > 0 and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def leading() -> Iterator[None]:
    """Inside, trainings are shared with torchrun's other processes, if there are any; afterwards these may go.

    Raises:
        StoreError: They could not be told, because this process failed alone in the middle of a training.
    """
    if os.environ.get("RANK") != "0" or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from pathpipe.training.distributed import dismiss, joined_group

    joined_group()
    try:
        yield
    finally:
        told = dismiss()
    if not told:
        raise StoreError("the processes of torchrun have lost each other", hint="run the same command again")


def follow() -> None:
    """Take part in every training until the leader has no more.

    A failure that comes of settings or data ends one training for all; the leader reports it.
    """
    from pathpipe.stages.train import STAGE, take_part
    from pathpipe.training.distributed import joined_group

    group = joined_group()
    while (said := group.tell()) is not None:
        folder, values, key = cast("tuple[str, dict[str, object], str]", said)
        run, settings = Run.open(Path(folder)), RunSettings.model_validate(values)
        job = Job(run, key, settings, Path(folder), STAGE.provenance(run, key, settings))
        try:
            take_part(job)
        except PathpipeError:
            continue

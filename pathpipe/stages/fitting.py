"""Fitting: how the stage `train` trains: where it is saved, who is told of it, in which processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pathpipe.stages.chain import train_name
from pathpipe.stages.stage import Job
from pathpipe.training.distributed import in_step, joined_group
from pathpipe.training.fit import Conditions
from pathpipe.training.logs import Story, open_logs
from pathpipe.training.memory import keep_freed_memory
from pathpipe.training.state import StateFile


@contextmanager
def conditions(job: Job) -> Iterator[Conditions]:
    """The conditions of one fold's training, for as long as it lasts; the others of torchrun are told to join in."""
    keep_freed_memory()
    group = joined_group()
    execution, name = job.settings.execution, train_name(job.settings)
    logs = open_logs(execution.log, _story(job, name)) if group.leads else ()
    if group.leads:
        group.tell((str(job.run.folder), job.settings.model_dump(mode="json"), job.key))
    state = StateFile(job.run.state(name, job.key), job.provenance.fingerprint, execution.save_every_s, job.claim)
    finished = False
    try:
        with in_step():
            yield Conditions(state, logs, group, execution.compile)
        finished = True
    finally:
        for log in logs:
            log.close(finished)


def _story(job: Job, name: str) -> Story:
    settings = job.settings.train.model_dump(mode="json")
    flat = {f"{key}.{inner}": value for key, inners in settings.items() for inner, value in _inner(inners).items()}
    return Story(
        run=job.run.folder.absolute().name,
        name=name,
        unit=job.key,
        fingerprint=job.provenance.fingerprint,
        settings={key.rstrip("."): value for key, value in flat.items()},
        folder=job.run.logs(name, job.key),
    )


def _inner(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"": value}

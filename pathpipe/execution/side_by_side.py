"""Candidates of a sweep tried at once: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from pathpipe.execution.candidate import Candidate, Result, Round, Trying
from pathpipe.execution.folds import threads_of_fold
from pathpipe.execution.processes import Hearing, run_in_processes
from pathpipe.progress import Progress, silent
from pathpipe.settings import RunSettings

Finished = Callable[[str, Result], None]
Tries = Callable[[Sequence[Candidate], Finished], object]  # (a batch, who hears of each as it is finished)


@contextmanager
def workers(trying: Trying, rounds: list[Round]) -> Iterator[Tries]:
    """Whoever tries the candidates of a batch, as the settings say.

    Args:
        rounds: What `trying` would load; a process of its own loads it itself.
    """
    settings = trying.settings
    if settings.execution.on == "ray":
        with _on_ray(trying) as tries:
            yield tries
    elif settings.sweep.side_by_side > 1:
        yield partial(_in_processes, trying)
    else:
        yield partial(_here, replace(trying, rounds=rounds))


def _here(trying: Trying, batch: Sequence[Candidate], finished: Finished) -> None:
    for candidate in batch:
        finished(candidate.key, trying(candidate.key))


def _in_processes(trying: Trying, batch: Sequence[Candidate], finished: Finished) -> None:
    settings = trying.settings
    threads = threads_of_fold(len(batch))
    works = [
        replace(trying, settings=settings.with_execution(device=device), threads=threads)
        for device in _devices(settings, batch)
    ]
    hearing = Hearing(silent, finished, lambda key, code: _died([f"exit {code}"]))
    run_in_processes(works, [candidate.key for candidate in batch], hearing)


def _devices(settings: RunSettings, batch: Sequence[Candidate]) -> list[str]:
    """One for each candidate: GPUs in turn where several are named."""
    if settings.execution.gpus is None:
        return [settings.execution.device] * len(batch)
    from pathpipe.encoders.load import pick_devices

    devices = pick_devices(settings.execution.gpus)
    return [devices[number % len(devices)] for number in range(len(batch))]


@contextmanager
def _on_ray(trying: Trying) -> Iterator[Tries]:
    from pathpipe.execution.ray import post_of, there, told_by
    from pathpipe.execution.ray_cluster import join, nodes
    from pathpipe.execution.ray_crew import Crew
    from pathpipe.execution.ray_room import need_of

    settings, run, ray = trying.settings, there(trying.run), join()
    need = need_of("train", settings, nodes(ray))
    work = replace(trying, run=run, settings=told_by(settings, need), threads=int(need.cpus))
    post = replace(post_of(work, run, "train", settings, need), stays=True)
    ledger = _Ledger()
    crew = Crew(ray, post, ledger)

    def tries(batch: Sequence[Candidate], finished: Finished) -> None:
        ledger.heard = finished
        crew.do([candidate.key for candidate in batch])

    try:
        yield tries
    finally:
        crew.dismiss()


class _Ledger:
    """Nobody leases candidates: there is nothing to give back."""

    heard: Finished

    def progress(self, message: Progress) -> None:
        pass

    def finished(self, key: str, result: Result, tried: list[str]) -> Result:
        self.heard(key, result)
        return result

    def lost(self, key: str, who: object) -> None:
        pass

    def gave_up(self, key: str, tried: list[str]) -> Result:
        result = _died(tried)
        self.heard(key, result)
        return result


def _died(tried: Sequence[str]) -> Result:
    return Result("fail", reason=f"the process that tried it died ({tried[-1]}): memory may have run out")

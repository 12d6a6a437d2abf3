"""Dispatch: which units are this command's, in which order they are begun, and where they are worked on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pathpipe.errors import MissingError, RemoteError, SettingsError
from pathpipe.execution import local
from pathpipe.execution.listener import Listener
from pathpipe.execution.looking import finished_already
from pathpipe.execution.receipt import Receipt
from pathpipe.remote import sizes
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import FROM_FEATURES, SLIDE_STAGES
from pathpipe.url import Url

T = TypeVar("T")
RunUnits = Callable[[Run, Sequence[str], RunSettings, Sequence[str], Listener], dict[str, list[Receipt]]]
_MANY = 2000  # units, from which all cores look at once for those that are finished
_SHARED = (*SLIDE_STAGES, *FROM_FEATURES, "train")  # stages of many units


def run_units(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Bring every unit through `stages` where the settings say; the largest are begun first.

    Returns:
        key -> receipts, in the order of `keys`.
    """
    try:
        order = large_first(run, stages, keys)
    except (RemoteError, MissingError):  # each slide will say so itself; those that lie elsewhere are worked on
        order = list(keys)
    results: dict[str, list[Receipt]] = {}
    if stages[-1] in _SHARED and (settings.execution.on == "ray" or len(order) >= _MANY):
        results = finished_already(run, stages, settings, order, listener)
    left = [key for key in order if key not in results]
    if left:
        results |= _runner(stages, settings)(run, stages, settings, left, listener)
    return {key: results[key] for key in keys}


def refuse_impossible(stages: Sequence[str], settings: RunSettings) -> None:
    """Refuse before anything is made what the place where it is worked on can never do.

    Raises:
        SettingsError: The Ray cluster can't hold the workers asked for, or the last of the stages has one unit, and
            only part of it is asked for.
        MissingError: There is no Ray, or the cluster can't be joined.
    """
    shard = settings.execution.shard
    if shard is not None and shard != "0/1" and stages[-1] not in _SHARED:
        raise SettingsError(f"`{stages[-1]}` has one unit, which can't be shared out", where="--shard")
    shared = [name for name in stages if name in _SHARED]
    if settings.execution.on == "ray" and shared:
        from pathpipe.execution.ray import check_room

        check_room(shared, settings)


def encodes_apart(settings: RunSettings) -> bool:
    """Whether slides are encoded by other workers than those that find tissue and tiles."""
    if settings.execution.on != "ray":
        return False
    from pathpipe.execution.ray import encodes_apart as on_ray

    return on_ray(settings)


def _runner(stages: Sequence[str], settings: RunSettings) -> RunUnits:
    if settings.execution.on == "ray" and stages[-1] in _SHARED:  # one unit is made here, beside what waits for it
        from pathpipe.execution.ray import run_units as on_ray

        return on_ray
    return local.run_units


def is_shared(stage: str) -> bool:
    """Whether a stage has many units."""
    return stage in _SHARED


def large_first(run: Run, stages: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Slides by the size of their file: a large one that is begun last keeps everyone waiting for it."""
    if stages[-1] not in (*SLIDE_STAGES, *FROM_FEATURES):
        return list(keys)
    size = _sizes(run, keys)
    return sorted(keys, key=lambda key: (-size[key], key))


def _sizes(run: Run, keys: Sequence[str]) -> dict[str, int]:
    """Bytes of each slide's file; 0 where there is none, which its stage will say.

    Raises:
        RemoteError: A bucket can't be listed. Workers that went on with sizes of their own would share out otherwise.
    """
    paths = {key: run.cohort[key].path for key in keys}
    remote = sizes(path for path in paths.values() if isinstance(path, Url))
    return {key: remote[path] if isinstance(path, Url) else _bytes(path) for key, path in paths.items()}


def _bytes(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def shard_of(run: Run, stage: str, keys: Sequence[str], shard: str) -> list[str]:
    """The part `I/N` of a stage's units: large and small slides are dealt out evenly, the same way by every worker.

    Whatever the cohort has one of is everybody's: who comes first makes it, the others wait.
    """
    if stage not in _SHARED:
        return list(keys)
    number, count = map(int, shard.split("/"))
    mine = set(deal(run, stage, keys, count)[number])
    return [key for key in keys if key in mine]


def deal(run: Run, stage: str, keys: Sequence[str], count: int) -> list[list[str]]:
    """The units of each of `count` parts, large first."""
    return share_out(large_first(run, [stage], keys), count)


def share_out(order: Sequence[T], count: int) -> list[list[T]]:
    """`count` parts of units in order of size, dealt out there and back, so that no part always gets the larger."""
    parts: list[list[T]] = [[] for _ in range(count)]
    for place, one in enumerate(order):
        turn, at = divmod(place, count)
        parts[at if turn % 2 == 0 else count - 1 - at].append(one)
    return parts

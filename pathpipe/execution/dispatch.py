"""Dispatch: which units are this command's, in which order they are begun, and where they are worked on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from pathpipe.errors import SettingsError
from pathpipe.execution import local
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import FROM_FEATURES, SLIDE_STAGES

RunUnits = Callable[[Run, Sequence[str], RunSettings, Sequence[str], Listener], dict[str, list[Receipt]]]
_SHARED = (*SLIDE_STAGES, *FROM_FEATURES, "train")  # stages of many units


def run_units(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Bring every unit through `stages` where the settings say; the largest are begun first.

    Returns:
        key -> receipts, in the order of `keys`.
    """
    results = _runner(settings)(run, stages, settings, large_first(run, stages, keys), listener)
    return {key: results[key] for key in keys}


def _runner(settings: RunSettings) -> RunUnits:
    if settings.execution.on == "ray":
        from pathpipe.execution.ray import run_units as on_ray

        return on_ray
    return local.run_units


def large_first(run: Run, stages: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Slides by the size of their file: a large one that is begun last keeps everyone waiting for it."""
    if stages[-1] == "train":
        return list(keys)
    size = {key: _bytes(run, key) for key in keys}
    return sorted(keys, key=lambda key: (-size[key], key))


def _bytes(run: Run, slide_id: str) -> int:
    """Size of the slide's file; 0 where there is none, which its stage will say."""
    try:
        return os.stat(run.cohort[slide_id].path).st_size
    except OSError:
        return 0


def shard_of(run: Run, stage: str, keys: Sequence[str], shard: str) -> list[str]:
    """The part `I/N` of a stage's units: large and small slides are dealt out evenly, the same way by every worker.

    Raises:
        SettingsError: The stage has one unit for the whole cohort.
    """
    if stage not in _SHARED:
        raise SettingsError(f"`{stage}` has one unit, which can't be shared out", where="--shard")
    number, count = map(int, shard.split("/"))
    mine = set(large_first(run, [stage], keys)[number::count])
    return [key for key in keys if key in mine]

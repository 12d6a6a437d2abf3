"""What the receipts of a run say, for views: which units failed, and what the work took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pathpipe.errors import PathpipeError
from pathpipe.report.work import StageWork, Trouble
from pathpipe.run import Run
from pathpipe.settings import Execution, RunSettings
from pathpipe.stages.bottleneck import describe_time
from pathpipe.stages.chain import FROM_FEATURES, NEEDS, SLIDE_STAGES, STAGES, units
from pathpipe.stages.endings import shortened

_BAD = ("failed", "stale", "empty")
Said = dict[str, Any]


def receipts_of(run: Run, settings: RunSettings) -> dict[str, dict[str, Said]]:
    """Stage -> unit -> its last receipt, of the stages before the report."""
    found: dict[str, dict[str, Said]] = {}
    for stage in NEEDS:
        if stage != "report":
            found[stage] = {key: said for key in _keys(run, stage, settings) if (said := _read(run, stage, key))}
    return {stage: said for stage, said in found.items() if said}


def _keys(run: Run, stage: str, settings: RunSettings) -> list[str]:
    if stage in (*SLIDE_STAGES, *FROM_FEATURES):
        return [slide.slide_id for slide in run.cohort.slides]
    try:
        return units(run, stage, settings)
    except PathpipeError:  # no folds, no units of them
        return []


def _read(run: Run, stage: str, key: str) -> Said | None:
    try:
        value = json.loads(run.receipt(stage, key).read_text(encoding="utf-8"))
        return {"spent": {}, "counts": {}, "seconds": 0.0, **value} if value["state"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def troubles(run: Run, receipts: dict[str, dict[str, Said]]) -> tuple[Trouble, ...]:
    """Units that came to nothing, each named once: what is empty or failed stays so in the stages after it."""
    return tuple(_troubles(run, receipts))


def _troubles(run: Run, receipts: dict[str, dict[str, Said]]) -> Iterator[Trouble]:
    known: set[str] = set()
    for stage, said in receipts.items():
        for key, one in said.items():
            if one["state"] not in _BAD or (key in known and one["state"] == "empty"):
                continue
            known.add(key)
            yield Trouble(key, stage, one["state"], shortened(run, key, one.get("reason")), one.get("hint") or "")


def work_of(run: Run, settings: RunSettings, receipts: dict[str, dict[str, Said]]) -> tuple[StageWork, ...]:
    """Units, seconds and tiles of every stage."""
    found = []
    for stage, said in receipts.items():
        states = [one["state"] for one in said.values()]
        made = [one for one in said.values() if one["state"] == "done" and one["seconds"] > 0]
        found.append(
            StageWork(
                stage,
                {state: states.count(state) for state in dict.fromkeys(states)},
                tuple(float(one["seconds"]) for one in made),
                sum(int(one["counts"].get("tiles", 0)) for one in made),
                where_of(run, stage, next(iter(said)), settings),
            )
        )
    return tuple(found)


def where_of(run: Run, stage: str, key: str, settings: RunSettings) -> str:
    """The folder or file in the run that holds what a stage made."""
    path = STAGES[stage].output(run, key, settings)
    whole = stage not in (*SLIDE_STAGES, *FROM_FEATURES, "train")
    inside = (path if whole else path.parent).relative_to(run.folder).as_posix()
    return inside if path.suffix and whole else f"{inside}/"


def bottleneck_of(receipts: dict[str, dict[str, Said]], execution: Execution) -> str | None:
    """Where encoding spent its time; None where nothing was encoded."""
    said = receipts.get("extract", {}).values()
    return describe_time([(one["spent"], one["counts"].get("tiles", 0)) for one in said], execution)

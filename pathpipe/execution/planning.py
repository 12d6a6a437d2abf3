"""Planning a cohort: every slide by itself, side by side in processes; a slide that fails is a conflict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from pathpipe.cohort import Cohort
from pathpipe.execution.listener import Listener
from pathpipe.execution.local import worker_count
from pathpipe.execution.processes import Hearing, run_in_processes
from pathpipe.execution.receipt import Receipt
from pathpipe.execution.unit import Failure, contain
from pathpipe.progress import Notify, silent
from pathpipe.settings import RunSettings
from pathpipe.stages.forecast import Rates, disk_bytes, probe
from pathpipe.stages.plan import Conflict, SlidePlan, find_conflicts, plan_slide, refuse_settings
from pathpipe.url import place, shown

FORMAT, VERSION = "pathpipe-plan", 1
STAGE = "plan"

# key -> meaning in `pathpipe plan --json`; docs/formats.md shows the same tables and a test compares
SLIDE_KEYS: dict[str, str] = {
    "slide_id": "slide id of the cohort",
    "path": "the slide file",
    "reader": "reader that opened it",
    "vendor": "format, as the reader names it",
    "levels": "(width, height) of each level, px",
    "mpp": "um/px of level 0, (x, y)",
    "mpp_source": "what says so",
    "level": "level that is read",
    "shrink": "by how much it is shrunk while it is decoded",
    "read_px": "(width, height) that is read, px after that shrinking",
    "resize": "factor of the one resize that follows, (x, y); 1 where there is none",
    "mpp_effective": "um/px the tiles will have, (x, y)",
    "mpp_error_percent": "largest deviation of that from the um/px asked for",
    "tissue_mm2": "area of tissue",
    "tiles": "number of tiles",
    "empty_reason": "why there are none, or null",
    "flags": "sentences about the tissue that a person should read",
    "read_s": "expected seconds to read the tiles",
    "encode_s": "expected seconds to encode them on one device",
    "extract_s": "the larger of the two: tiles are read while others are encoded",
    "disk_bytes": "expected size of features, tile table, overlay and outlines",
    "plan_s": "seconds it took to find tissue and tiles, which `tile` will take too",
}
TOTAL_KEYS: dict[str, str] = {
    "slides": "slides of the cohort",
    "slides_with_tiles": "of these, with at least one tile",
    "slides_in_conflict": "of these, named in `conflicts`",
    "tiles": "number of tiles",
    "tile_hours": "expected hours of `tile`, on as many processes as planned",
    "extract_hours": "expected hours of `extract` on `devices` devices; null when a rate is not known",
    "read_hours": "the reading in it",
    "encode_hours": "the encoding in it",
    "disk_gb": "expected size of all, 1e9 bytes",
}


@dataclass(frozen=True)
class CohortPlan:
    """Plans of all slides, what is in the way, and how fast this machine is."""

    settings: RunSettings
    slides: tuple[SlidePlan, ...]
    rates: Rates
    processes: int

    @cached_property
    def conflicts(self) -> list[Conflict]:
        """See `find_conflicts`."""
        return find_conflicts(self.slides)

    def totals(self) -> dict[str, Any]:
        """The keys of `TOTAL_KEYS`."""
        rates, plans = self.rates, self.slides
        return {
            "slides": len(plans),
            "slides_with_tiles": sum(bool(plan.tiles) for plan in plans),
            "slides_in_conflict": len({conflict.slide_id for conflict in self.conflicts}),
            "tiles": sum(plan.tiles or 0 for plan in plans),
            "tile_hours": _hours([plan.seconds for plan in plans], self.processes),
            "extract_hours": _hours([rates.extract_s(plan) for plan in plans], rates.devices),
            "read_hours": _hours([rates.read_s(plan) for plan in plans], rates.devices),
            "encode_hours": _hours([rates.encode_s(plan) for plan in plans], rates.devices),
            "disk_gb": sum(disk_bytes(plan, self.settings.extract) for plan in plans if plan.tiles is not None) / 1e9,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form (docs/formats.md, plan)."""
        rates = self.rates
        return {
            "format": FORMAT,
            "version": VERSION,
            "slides": [self.row(plan) for plan in self.slides],
            "conflicts": [
                {"slide_id": one.slide_id, "kind": one.kind, "reason": one.reason, "hint": one.hint}
                for one in self.conflicts
            ],
            "rates": {
                "tiles_read": rates.tiles,
                "read_threads": rates.read_threads,
                "read_s_per_mpx": dict(rates.read_s_per_mpx),
                "encode_tiles_per_s": rates.encode_tiles_per_s,
                "encode_note": rates.encode_note,
                "devices": rates.devices,
            },
            "totals": self.totals(),
        }

    def row(self, plan: SlidePlan) -> dict[str, Any]:
        """The keys of `SLIDE_KEYS`; null where a conflict kept it from being known."""
        mpp, read, rates = plan.mpp, plan.read, self.rates
        counted = plan.tiles is not None
        return {
            "slide_id": plan.slide_id,
            "path": shown(place(plan.path)),
            "reader": plan.reader,
            "vendor": plan.vendor,
            "levels": [list(size) for size in plan.levels],
            "mpp": [mpp.x, mpp.y] if mpp else None,
            "mpp_source": mpp.source if mpp else None,
            "level": read.level if read else None,
            "shrink": read.shrink if read else None,
            "read_px": list(read.read_px) if read else None,
            "resize": [read.tile_px / side for side in read.read_px] if read else None,
            "mpp_effective": list(read.mpp_effective) if read else None,
            "mpp_error_percent": 100 * read.error if read else None,
            "tissue_mm2": plan.tissue_um2 / 1e6 if plan.tissue_um2 is not None else None,
            "tiles": plan.tiles,
            "empty_reason": plan.empty_reason,
            "flags": list(plan.flags),
            "read_s": rates.read_s(plan) if counted else None,
            "encode_s": rates.encode_s(plan) if counted else None,
            "extract_s": rates.extract_s(plan) if counted else None,
            "disk_bytes": disk_bytes(plan, self.settings.extract) if counted else None,
            "plan_s": plan.seconds,
        }


def plan_cohort(
    cohort: Cohort,
    settings: RunSettings,
    listener: Listener,
    *,
    probed: bool = True,
    gpu_rate: float | None = None,
    gpu_count: int = 1,
) -> CohortPlan:
    """Plan every slide; never raises for a slide that fails, only for settings that would fail all.

    Args:
        probed: Read a few tiles, and encode them where weights are at hand, to tell how long it will take.
        gpu_rate: Tiles/s that one GPU encodes, when that is known; nothing is encoded then.
        gpu_count: GPUs that share the cohort, each with its own reading threads.
    """
    keys = [slide.slide_id for slide in cohort.slides]
    refuse_settings(keys, settings)
    processes = worker_count(settings, ["tissue", "tile"], len(keys))
    listener.begin([STAGE], len(keys))
    work = partial(plan_one, cohort, settings)

    def finished(key: str, plan: SlidePlan) -> None:
        listener.finished(key, [Receipt(STAGE, key, "done")])  # what is wrong with it is told with the rest

    plans: dict[str, SlidePlan] = {}
    if processes > 1:
        plans = run_in_processes([work] * processes, keys, Hearing(listener.progress, finished, partial(_died, cohort)))
    else:
        for key in keys:
            plans[key] = work(key)
            finished(key, plans[key])
    ordered = tuple(plans[key] for key in keys)
    rates = probe(ordered, settings, encode=gpu_rate is None) if probed else Rates()
    if gpu_rate is not None:
        rates = replace(rates, encode_tiles_per_s=gpu_rate, encode_note="as given", devices=gpu_count)
    return CohortPlan(settings, ordered, rates, processes)


def plan_one(cohort: Cohort, settings: RunSettings, key: str, notify: Notify = silent) -> SlidePlan:
    """Plan one slide; whatever goes wrong ends in its conflict."""
    row = cohort[key]
    plan = contain(lambda: plan_slide(row, settings))
    if isinstance(plan, Failure):
        hint = plan.hint
        if plan.trace is not None:
            hint = "please report it: " + " ".join(plan.trace.split()[-60:])
        conflict = Conflict(key, "unreadable", plan.reason, hint)
        return SlidePlan(key, str(row.path), conflict=conflict)
    return plan


def _died(cohort: Cohort, key: str, exitcode: int | None) -> SlidePlan:
    reason = f"the process that looked at it died (exit {exitcode}): a reader crashed, or memory ran out"
    conflict = Conflict(key, "unreadable", reason, "try another `--reader`")
    return SlidePlan(key, str(cohort[key].path), conflict=conflict)


def _hours(seconds: Sequence[float | None], share: int) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) / max(share, 1) / 3600 if len(known) == len(seconds) else None

"""The pipeline: a run brought up to date as far as one stage, everything before it included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pathpipe.errors import ExitCode
from pathpipe.execution.dispatch import encodes_apart, refuse_impossible, run_units, shard_of
from pathpipe.execution.helping import help_others
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import FROM_FEATURES, SLIDE_STAGES, STAGES, passes, units, upstream

_PARTS = (*SLIDE_STAGES, "embed", "train")  # stages whose units may be dealt out to several commands


@dataclass(frozen=True)
class Outcome:
    """What became of every unit.

    Attributes:
        receipts: Stage -> key -> receipt, for the units that were reached.
    """

    receipts: dict[str, dict[str, Receipt]] = field(default_factory=dict)

    def of(self, *states: str) -> list[Receipt]:
        """All receipts in the given states."""
        return [one for stage in self.receipts.values() for one in stage.values() if one.state in states]

    def exit_code(self, max_failures: int) -> ExitCode:
        """0 all done; 2 stale results were left alone; 4 a leak; 1 more units failed than tolerated."""
        if self.of("stale"):
            return ExitCode.BAD_REQUEST
        failed = self.of("failed")
        if any(one.refused for one in failed):
            return ExitCode.REFUSED
        cohort_wide = [one for one in failed if one.stage not in (*SLIDE_STAGES, *FROM_FEATURES)]
        return ExitCode.SOME_FAILED if cohort_wide or len(failed) > max_failures else ExitCode.DONE


def bring_up_to_stage(
    run: Run,
    stage: str,
    settings: RunSettings,
    listener: Listener,
    only: Sequence[str] | None = None,
    alone: bool = False,
) -> Outcome:
    """Bring a run up to date as far as `stage`.

    Slides that fail stay out and the rest goes on; a stage of the whole cohort that fails ends the chain, unless it is
    a view that nothing is made from; the report is made all the same, and shows what failed.

    Args:
        only: Slide ids the last stage is limited to, if it works on slides.
        alone: Whether what comes before the stage is left as it is.

    Raises:
        CohortError: The cohort has no such slide.
    """
    outcome = Outcome()
    chain = chain_of(stage, settings, alone)
    for slide_id in only or ():
        run.cohort[slide_id]  # raises where there is none
    preflight(run, chain, settings)
    ended, fallen = False, set[str]()
    for group in _groups(chain, settings):
        if ended and not STAGES[group[-1]].always:
            continue
        last = group[-1] == stage or {group[-1], stage} <= set(SLIDE_STAGES)
        keys = [key for key in _keys(run, group[-1], settings, only if last else None) if key not in fallen]
        listener.begin(group, len(keys))
        blocked: list[Receipt] = []
        for number, one in enumerate(passes(group, settings)):
            results = run_units(run, group[-1:] if number else group, one, keys, listener)
            if one.execution.help_others and last and not number:
                results |= help_others(run, group, one, _others(run, group[-1], one, keys), listener)
            for key, receipts in results.items():
                for receipt in receipts:
                    label = f"{receipt.stage} {one.extract.encoder}" if number else receipt.stage
                    outcome.receipts.setdefault(label, {})[key] = receipt
            blocked += [one for receipts in results.values() for one in receipts if not one.ok]
            keys = [key for key in keys if results[key][-1].ok]
        if group[-1] in SLIDE_STAGES:
            fallen.update(one.key for one in blocked)
        if any(one.state == "stale" for one in blocked):
            break
        go_on = group[-1] in (*SLIDE_STAGES, *FROM_FEATURES) or STAGES[group[-1]].view
        ended = ended or any(one.refused for one in blocked) or bool(blocked and not go_on)
    return outcome


def preflight(run: Run, chain: Sequence[str], settings: RunSettings) -> None:
    """Refuse what would fail every unit before anything is made.

    Raises:
        PathpipeError: As the stage says: settings that can't be, weights that are missing.
    """
    refuse_impossible(chain, settings)
    for name in chain:
        check = STAGES[name].preflight
        if check is not None:
            for one in passes([name], settings):
                check(run, one)


def chain_of(stage: str, settings: RunSettings, alone: bool = False) -> list[str]:
    """What is brought up to date: of a part that is shared out (`--shard`) its own slides' tiles and whatever the whole
    cohort has one of, but nothing that is, or was, other parts' work."""
    chain = [stage] if alone else upstream(stage)
    if settings.execution.shard is None or stage in SLIDE_STAGES:
        return chain
    others = {name for part in _PARTS if part in chain and part != stage for name in upstream(part)}
    return [name for name in chain if name not in others]


def _keys(run: Run, stage: str, settings: RunSettings, only: Sequence[str] | None) -> list[str]:
    keys = units(run, stage, settings)
    if only is not None:
        keys = [key for key in keys if key in set(only)]
    shard = settings.execution.shard
    return keys if shard is None else shard_of(run, stage, keys, shard)


def _others(run: Run, stage: str, settings: RunSettings, keys: Sequence[str]) -> list[str]:
    """Slides of the parts that are others' to do."""
    mine = set(keys)
    shared_out = settings.execution.shard is not None and stage in SLIDE_STAGES
    return [key for key in units(run, stage, settings) if key not in mine] if shared_out else []


def _groups(chain: Sequence[str], settings: RunSettings) -> list[list[str]]:
    """Slide stages go together, so that a slide is read while it is in the page cache; others one by one.

    Where a worker that encodes holds a GPU, tissue and tiles are others' work, and come first.
    """
    slide_stages = [name for name in chain if name in SLIDE_STAGES]
    others = [[name] for name in chain if name not in SLIDE_STAGES]
    if len(slide_stages) > 1 and slide_stages[-1] == "extract" and encodes_apart(settings):
        return [slide_stages[:-1], slide_stages[-1:], *others]
    return [slide_stages, *others] if slide_stages else others

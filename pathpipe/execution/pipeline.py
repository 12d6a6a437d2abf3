"""The pipeline: a run brought up to date as far as one stage, everything before it included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pathpipe.errors import ExitCode
from pathpipe.execution.dispatch import run_units, shard_of
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import FROM_FEATURES, SLIDE_STAGES, STAGES, for_encoder, further_encoders, units, upstream


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
    """
    outcome = Outcome()
    chain = _chain(stage, settings, alone)
    for name in chain:
        check = STAGES[name].preflight
        if check is not None:
            for one in _passes([name], settings):
                check(run, one)
    ended = False
    for group in _groups(chain):
        if ended and not STAGES[group[-1]].always:
            continue
        keys = _keys(run, group[-1], settings, only if group[-1] == stage else None)
        listener.begin(group, len(keys))
        blocked: list[Receipt] = []
        for number, one in enumerate(_passes(group, settings)):
            results = run_units(run, group[-1:] if number else group, one, keys, listener)
            for key, receipts in results.items():
                for receipt in receipts:
                    label = f"{receipt.stage} {one.extract.encoder}" if number else receipt.stage
                    outcome.receipts.setdefault(label, {})[key] = receipt
            blocked += [one for receipts in results.values() for one in receipts if not one.ok]
            keys = [key for key in keys if results[key][-1].ok]
        if any(one.state == "stale" for one in blocked):
            break
        go_on = group[-1] in (*SLIDE_STAGES, *FROM_FEATURES) or STAGES[group[-1]].view
        ended = ended or any(one.refused for one in blocked) or bool(blocked and not go_on)
    return outcome


def _chain(stage: str, settings: RunSettings, alone: bool) -> list[str]:
    # What all parts of a stage need is made before they are dealt out; but a slide's tiles are its own part's.
    shared_out = settings.execution.shard is not None and stage not in SLIDE_STAGES
    return [stage] if alone or shared_out else upstream(stage)


def _keys(run: Run, stage: str, settings: RunSettings, only: Sequence[str] | None) -> list[str]:
    keys = units(run, stage, settings)
    if only is not None:
        keys = [key for key in keys if key in set(only)]
    shard = settings.execution.shard
    return keys if shard is None else shard_of(run, stage, keys, shard)


def _passes(stages: Sequence[str], settings: RunSettings) -> list[RunSettings]:
    """Encoding goes over the slides once for each encoder; the first pass feeds the others with its tiles."""
    others = further_encoders(settings) if "extract" in stages else []
    return [settings, *(for_encoder(settings, name) for name in others)]


def _groups(chain: Sequence[str]) -> list[list[str]]:
    """Slide stages go together, so that a slide is read while it is in the page cache; others one by one."""
    slide_stages = [name for name in chain if name in SLIDE_STAGES]
    others = [[name] for name in chain if name not in SLIDE_STAGES]
    return [slide_stages, *others] if slide_stages else others

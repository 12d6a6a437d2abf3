"""What is left to do in a run, told from the settings that its artefacts carry: no slide is opened."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathpipe.errors import CohortError, StaleError
from pathpipe.execution.listener import Listener
from pathpipe.execution.pipeline import bring_up_to_stage
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import (
    COHORT,
    FROM_FEATURES,
    NEEDS,
    SLIDE_STAGES,
    STAGES,
    fold_key,
    passes,
)


@dataclass(frozen=True)
class Left:
    """A stage's units.

    Attributes:
        keys: All of them, in order.
        left: Those with no artefact of these settings, or with something left to do before them. What has failed
            before is among them.
    """

    stage: str
    keys: tuple[str, ...]
    left: frozenset[str]


def left_to_do(run: Run, stages: Sequence[str], settings: RunSettings) -> dict[str, Left]:
    """What is left of each stage.

    Args:
        stages: In order. Where `train` is among them, the split must be there, or `planned_folds` be asked.

    Raises:
        StaleError: Something was made with other settings, and they don't say what becomes of it.
    """
    found: dict[str, Left] = {}
    for stage in stages:
        keys = _keys(run, stage, settings)
        left = {key for key in keys if _wanting(run, stage, key, settings)}
        for before in (found[name] for name in NEEDS[stage] if name in found):
            left.update(before.left & set(keys) if _by_slide(stage) and _by_slide(before.stage) else ())
            if before.left and not _by_slide(stage):
                left.update(keys)
        found[stage] = Left(stage, tuple(keys), frozenset(left))
    return found


def planned_folds(run: Run, settings: RunSettings) -> tuple[int, ...]:
    """The folds of the split that these settings ask for; where it isn't there, it is made in a folder that is gone
    again."""
    from pathpipe.stages.split import read_splits, split_name

    made = read_provenance(run.split(split_name(settings))) if run.split(split_name(settings)).exists() else None
    if made is not None and made.settings == STAGES["split"].what(settings):
        return read_splits(run, settings).folds
    with tempfile.TemporaryDirectory(prefix="pathpipe-") as folder:
        scratch = Run.create(Path(folder) / "run", run.cohort)
        make_split(scratch, settings)
        return read_splits(scratch, settings).folds


def make_split(run: Run, settings: RunSettings) -> None:
    """Deal out the patients, which needs the cohort's table only.

    Raises:
        CohortError: They can't be.
    """
    here = settings.with_execution(on="local", shard=None, dry_run=False)
    outcome = bring_up_to_stage(run, "split", here, Listener())
    for one in outcome.of("stale"):
        raise StaleError(one.reason or one.state, where="split", hint=one.hint)
    for one in outcome.of("failed"):
        raise CohortError(one.reason or one.state, where="split", hint=one.hint)


def _keys(run: Run, stage: str, settings: RunSettings) -> list[str]:
    if _by_slide(stage):
        return [slide.slide_id for slide in run.cohort.slides]
    if stage == "train":
        return [fold_key(fold, seed) for fold in planned_folds(run, settings) for seed in settings.train.seeds]
    return [COHORT]


def _by_slide(stage: str) -> bool:
    return stage in (*SLIDE_STAGES, *FROM_FEATURES)


def _wanting(run: Run, stage: str, key: str, settings: RunSettings) -> bool:
    return any([_missing(run, stage, key, one) for one in passes([stage], settings)])  # each may be stale


def _missing(run: Run, stage: str, key: str, settings: RunSettings) -> bool:
    record = STAGES[stage]
    path = record.output(run, key, settings)
    found = read_provenance(path) if path.exists() else None
    if found is None:
        return True
    if found.settings == record.what(settings) or settings.execution.stale == "keep":
        return False
    if settings.execution.stale == "refuse" and not record.view:
        raise StaleError(
            f"{stage} {key} was made with other settings",
            where=str(path),
            hint="`--stale remake` makes such results again, `--stale keep` uses them as they are; or start another "
            "run with `-o`",
        )
    return True

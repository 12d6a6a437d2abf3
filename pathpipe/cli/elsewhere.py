"""Work that isn't done by this command: handed to Slurm (`--on slurm`), or only shown (`--dry-run`)."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathpipe.errors import PathpipeError, SettingsError

if TYPE_CHECKING:
    from pathpipe.cohort import Cohort
    from pathpipe.execution.left import Left
    from pathpipe.execution.slurm import Step
    from pathpipe.run import Run
    from pathpipe.settings import RunSettings

_STEP_COLUMNS = ("step", "elements", "units", "left", "resources", "job")
_STAGE_COLUMNS = ("stage", "units", "left", "workers", "device")
_TRAINS = ("audit", "train", "sweep", "report")  # steps whose number of folds has to be known


@dataclass(frozen=True)
class Work:
    """What is asked for.

    Attributes:
        asked: A stage, or `sweep` or `predict`.
        stage: The last stage of the chain that it needs.
        folder: The run.
        cohort: A new table for the run; None: its own.
        last: Of `predict`: its own command line, for its last step.
        alone: Whether what comes before is left as it is.
    """

    asked: str
    stage: str
    folder: Path
    cohort: Cohort | None
    settings: RunSettings
    last: Sequence[str] = ()
    alone: bool = False
    quiet: bool = False


def is_elsewhere(settings: RunSettings) -> bool:
    """Whether the command itself does none of the work."""
    return settings.execution.dry_run or settings.execution.on == "slurm"


def do_elsewhere(work: Work) -> None:
    """Submit, or show what would be done.

    Raises:
        SettingsError: Slurm is no place for it, or doesn't take it.
        MissingError: There is no Slurm here.
        PathpipeError: Whatever the work itself would be refused for before its first unit.
    """
    if work.settings.execution.on != "slurm":
        _show_stages(work)
        return
    from pathpipe.execution.slurm import STEPS

    if work.asked not in STEPS or work.alone:
        raise SettingsError(
            f"`{work.asked}` is one job: submit its command yourself",
            where="--on slurm",
            hint="tile, extract, embed, train, sweep, predict, report and run are handed to Slurm",
        )
    if work.settings.execution.dry_run:
        _show_scripts(work)
    else:
        _submit(work)


def _planned(work: Work, run: Run) -> tuple[RunSettings, Path, list[Step]]:
    """Settings of the elements, folder of the submission, and the steps that have something to do."""
    from pathpipe.execution.left import left_to_do
    from pathpipe.execution.pipeline import preflight
    from pathpipe.execution.slurm import STEPS, plan_steps, settings_of_elements
    from pathpipe.execution.submission import SETTINGS, next_folder
    from pathpipe.stages.chain import COHORT, STAGES, upstream

    settings = settings_of_elements(work.settings)
    chain = upstream(work.stage)
    preflight(run, chain, work.settings)
    left = left_to_do(run, chain, settings)
    audit = STAGES["audit"]
    if "audit" in chain and not left["audit"].left and audit.gate is not None:
        audit.gate(audit.output(run, COHORT, settings), settings)
    folder = next_folder(run)
    commands = {name: _command(name, work, folder / SETTINGS) for name in STEPS[work.asked]}
    return settings, folder, plan_steps(run, work.asked, settings, left, commands)


def _command(step: str, work: Work, settings_file: Path) -> list[str]:
    from pathpipe.execution.slurm import uses_cuda

    device = ["--device", "cuda"] if uses_cuda(step, work.settings) else []
    if step == "predict":
        return [*work.last, *device]
    word = {"contact-sheet": "tile"}.get(step, step)
    return [word, str(work.folder), "--config", str(settings_file), *device]


def _submit(work: Work) -> None:
    from pathpipe.cli.session import stderr_console
    from pathpipe.execution.left import make_split
    from pathpipe.execution.slurm import STEPS
    from pathpipe.execution.submission import submit
    from pathpipe.run import Run

    run = Run.open(work.folder) if work.cohort is None else Run.create(work.folder, work.cohort)
    before = run.saved_settings()
    run.save_settings(work.settings)
    folder = None
    try:
        if set(STEPS[work.asked]) & set(_TRAINS):
            make_split(run, work.settings)
        settings, folder, steps = _planned(work, run)
        if not steps:
            stderr_console().print("nothing is left to do", highlight=False)
            return
        submission = submit(folder, work.asked, steps, settings)
    except PathpipeError:
        run.restore_settings(before)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if not work.quiet:
        _print_steps(steps, settings, [step.handed[0].job for step in submission.steps])
        stderr_console().print(
            f"submitted: job {submission.name} of {run.folder}; `pathpipe jobs {run.folder}` shows how it goes",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _show_scripts(work: Work) -> None:
    from pathpipe.execution.slurm import script
    from pathpipe.execution.slurm_queue import command

    settings, folder, steps = _planned(work, _run_to_look_at(work))
    for step in steps:
        print(f"# {folder / step.name}.sbatch")
        print(script(step, folder, settings))
    before = ""
    for step in steps:
        options = [f"--dependency={step.after}:{before}"] if before else []
        *words, path = command(folder / f"{step.name}.sbatch", options)
        print(" ".join([*words, shlex.quote(path)]))
        before = f"<{step.name}>"
    if not steps:
        print("nothing is left to do")


def _print_steps(steps: Sequence[Step], settings: RunSettings, jobs: Sequence[str]) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.execution.slurm import directives

    rows = [
        [step.name, step.array, step.units, step.left, " ".join(directives(step.name, settings)), job]
        for step, job in zip(steps, jobs, strict=True)
    ]
    print_table(_STEP_COLUMNS, rows)


def _run_to_look_at(work: Work) -> Run:
    from pathpipe.run import Run

    return Run.open(work.folder) if work.cohort is None else Run.with_cohort(work.folder, work.cohort)


def _show_stages(work: Work) -> None:
    """What would be done on this machine, or on the Ray cluster."""
    from pathpipe.cli.tables import print_table
    from pathpipe.execution.dispatch import shard_of
    from pathpipe.execution.left import left_to_do
    from pathpipe.execution.pipeline import chain_of, preflight

    run, settings = _run_to_look_at(work), work.settings
    chain = chain_of(work.stage, settings, work.alone)
    preflight(run, chain, settings)
    left = left_to_do(run, chain, settings)
    shard = settings.execution.shard
    if shard is not None:
        left = {name: _part(one, shard_of(run, name, one.keys, shard)) for name, one in left.items()}
    rows = [[name, len(one.keys), len(one.left), *_workers(run, settings, left, name)] for name, one in left.items()]
    print_table(_STAGE_COLUMNS, rows)


def _part(one: Left, keys: Sequence[str]) -> Left:
    return replace(one, keys=tuple(keys), left=one.left & set(keys))


def _workers(run: Run, settings: RunSettings, left: Mapping[str, Left], stage: str) -> list[Any]:
    """How many workers a stage would have, and on what."""
    from pathpipe.execution.dispatch import is_shared
    from pathpipe.execution.local import settings_of_workers

    units = len(left[stage].left)
    if not units:
        return [0, ""]
    if settings.execution.on == "ray" and is_shared(stage):
        from pathpipe.execution.ray import crew_of

        count, need = crew_of(stage, settings, units)
        return [count, f"{need} each"]
    told = settings_of_workers(run, settings, [stage], units)
    return [len(told), " ".join(dict.fromkeys(one.execution.device for one in told))]

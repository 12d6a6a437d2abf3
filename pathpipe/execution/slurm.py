"""Slurm: a command as a chain of job arrays, each element of which is the same command with its part of the units."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathpipe.errors import SettingsError
from pathpipe.execution.dispatch import deal
from pathpipe.execution.element import VARIABLE
from pathpipe.execution.left import Left
from pathpipe.run import Run
from pathpipe.settings import ClusterSettings, RunSettings
from pathpipe.stages.chain import COHORT

# What is asked for -> the steps it is done in. Each waits for the one before.
STEPS: dict[str, tuple[str, ...]] = {
    "tile": ("tile", "contact-sheet"),
    "contact-sheet": ("tile", "contact-sheet"),
    "extract": ("tile", "extract"),
    "embed": ("tile", "extract", "embed"),
    "train": ("tile", "extract", "audit", "train"),
    "sweep": ("tile", "extract", "audit", "sweep"),
    "predict": ("tile", "extract", "predict"),
    "report": ("tile", "extract", "audit", "train", "report"),
}
ARRAYS = ("tile", "extract", "embed", "train")
_USES_GPU = ("extract", "embed", "train", "sweep")
# A report shows what failed; and an element that encodes tiles its own slides where that was not done before it.
_WHATEVER_HAPPENED = ("extract", "report")
_AT_ONCE, _CPUS = 16, 4
_LEFT_S = 60  # before the time limit, to stop at the next sign of life


@dataclass(frozen=True)
class Step:
    """One job array.

    Attributes:
        arguments: What pathpipe is called with, less the part.
        parts: How many parts the units are dealt out to.
        elements: Numbers of the parts that have something left to do.
        units: Units in all.
        left: Units left to do.
        after: `afterok` or `afterany` of the step before it.
    """

    name: str
    arguments: tuple[str, ...]
    parts: int
    elements: tuple[int, ...]
    units: int
    left: int
    after: str

    @property
    def array(self) -> str:
        """`0-15` or `3,7`, as sbatch writes it."""
        return array_of(self.elements)


def array_of(elements: Sequence[int]) -> str:
    """Numbers as sbatch writes them: `0-15`, `3,7-9`."""
    spans: list[list[int]] = []
    for number in sorted(elements):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def settings_of_elements(settings: RunSettings) -> RunSettings:
    """What is on file for the elements: the same work, done where they are.

    Raises:
        SettingsError: GPUs of one machine are named.
    """
    execution = settings.execution
    if execution.gpus is not None or execution.device.startswith("cuda:"):
        raise SettingsError(
            "names GPUs of one machine, and Slurm chooses those of each worker",
            where="--gpus" if execution.gpus is not None else "--device",
            hint="with `--on slurm` say what each worker needs: --worker-gpus 1",
        )
    if execution.shard is not None:
        raise SettingsError("is for a part of the work; Slurm gets all of it", where="--shard", hint="leave it out")
    device = "cpu" if execution.device == "cpu" else "auto"
    return settings.with_execution(on="local", dry_run=False, help_others=True, device=device)


def plan_steps(
    run: Run,
    asked: str,
    settings: RunSettings,
    left: Mapping[str, Left],
    commands: Mapping[str, Sequence[str]],
) -> list[Step]:
    """The steps that have something to do.

    Args:
        asked: Key of `STEPS`.
        left: Of each stage that is among the steps.
        commands: Step -> what pathpipe is called with.

    Raises:
        SettingsError: What is asked of Slurm can't be had from it.
    """
    steps: list[Step] = []
    for name in STEPS[asked]:
        one = left.get(name, Left(name, (COHORT,), frozenset({COHORT})))
        if not one.left:
            continue
        needs = settings.cluster.of(name)
        parts = min(len(one.keys), needs.at_once or _AT_ONCE) if name in ARRAYS else 1
        dealt = deal(run, name, one.keys, parts) if name in ("tile", "extract", "train") else None
        elements = tuple(n for n in range(parts) if dealt is None or not one.left.isdisjoint(dealt[n]))
        after = "afterany" if name in _WHATEVER_HAPPENED else "afterok"
        directives(name, settings)  # refused now, not after hours
        steps.append(Step(name, tuple(commands[name]), parts, elements, len(one.keys), len(one.left), after))
    return steps


def directives(name: str, settings: RunSettings) -> list[str]:
    """Options of sbatch that say what an element of a step needs.

    Raises:
        SettingsError: A share of a GPU, which plain Slurm doesn't hand out.
    """
    needs = settings.cluster.of(name)
    options = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={needs.worker_cpus or _CPUS}"]
    gpus = gpus_of(name, settings)
    if gpus:
        options.append(f"--gres=gpu:{gpus}")
    if needs.worker_memory_gb:
        options.append(f"--mem={math.ceil(needs.worker_memory_gb * 1e9 / 2**20)}M")
    if needs.worker_hours:
        options.append(f"--time={math.ceil(needs.worker_hours * 60)}")
    for option in ("partition", "account", "qos"):
        value = getattr(needs, option)
        if value is not None:
            options.append(f"--{option}={value}")
    return [*options, *needs.sbatch]


def gpus_of(name: str, settings: RunSettings) -> int:
    """GPUs of an element: as asked, for steps that encode or train; another's must be asked for itself.

    Raises:
        SettingsError: It is a share of one.
    """
    own = "worker_gpus" in settings.cluster.stages.get(name, {})
    asked = settings.cluster.of(name).worker_gpus if own or name in _USES_GPU else None
    if asked and not float(asked).is_integer():
        raise SettingsError(
            f"{asked:g} GPUs: Slurm hands out whole ones",
            where="--worker-gpus",
            hint="a site that shares GPUs has its own word for it: `--worker-gpus 0 --sbatch=--gres=shard:1`",
        )
    if asked and settings.execution.device == "cpu":
        raise SettingsError(f"a worker with {asked:g} GPUs is to use the CPU", where="--device", hint="drop one")
    return int(asked or 0)


def uses_cuda(name: str, settings: RunSettings) -> bool:
    """Whether a step that encodes or trains is to refuse a node without a GPU, rather than take days."""
    return name in _USES_GPU and (gpus_of(name, settings) > 0 or settings.execution.device == "cuda")


def script(step: Step, folder: Path, settings: RunSettings) -> str:
    """The batch script of a step, for a person to read and for sbatch to run.

    Args:
        folder: Of the submission, where scripts, settings, records and logs lie.
    """
    needs: ClusterSettings = settings.cluster.of(step.name)
    environment = {"OMP_NUM_THREADS": str(needs.worker_cpus or _CPUS), **needs.environment}
    log = str(folder / "logs" / f"{step.name}-%a.log").replace("%", "%%").replace("%%a.log", "%a.log")
    options = [
        f"--job-name=pathpipe-{step.name}",
        f"--array={step.array}",
        f"--output={_quoted(log)}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{_LEFT_S}",
        "--kill-on-invalid-dep=yes",
        *directives(step.name, settings),
    ]
    part = f' --shard "$SLURM_ARRAY_TASK_ID/{step.parts}"' if takes_part(step.name) else ""
    record = shlex.quote(str(folder / "elements" / f"{step.name}-"))
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in options),
            "set -e",
            *needs.setup,
            *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
            f'export {VARIABLE}={record}"$SLURM_ARRAY_TASK_ID".json',
            "# exec: Slurm's signals reach pathpipe itself, which commits what it has and stops",
            f"exec {shlex.quote(sys.executable)} -m pathpipe {shlex.join(step.arguments)}{part}",
            "",
        ]
    )


def takes_part(name: str) -> bool:
    """Whether a step is told its part; the others bring up to date all that comes before them."""
    return name in (*ARRAYS, "audit", "report")


def _quoted(value: str) -> str:
    return f'"{value}"' if any(letter.isspace() for letter in value) else value

"""Submission: what was handed to Slurm at one time, on file in RUN/jobs/ID for whoever asks later."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pathpipe.errors import StoreError
from pathpipe.execution.slurm import Step, array_of, script
from pathpipe.execution.slurm_queue import sbatch, scancel, this_user
from pathpipe.publish import publish_json, publish_text
from pathpipe.run import Run
from pathpipe.settings import RunSettings, to_yaml

FORMAT, VERSION = "pathpipe-jobs", 1
SETTINGS, RECORD = "settings.yaml", "submission.json"


@dataclass(frozen=True)
class Handed:
    """Elements that were submitted together: at first all of a step's, later those that failed or were lost.

    Attributes:
        job: Slurm's id of the array.
        at: Seconds since 1970.
    """

    job: str
    elements: tuple[int, ...]
    at: float


@dataclass(frozen=True)
class SubmittedStep:
    """A step, and what became of it in Slurm; see `pathpipe.execution.slurm.Step`."""

    name: str
    parts: int
    units: int
    left: int
    after: str
    handed: tuple[Handed, ...]

    @property
    def elements(self) -> dict[int, str]:
        """Number of the element -> the job it was last submitted in."""
        return {number: one.job for one in self.handed for number in one.elements}


@dataclass(frozen=True)
class Submission:
    """All steps of one command.

    Attributes:
        name: Also of its folder: `0001`, `0002`.
        asked: The command.
        user: Who submitted it.
    """

    folder: Path
    name: str
    asked: str
    user: str
    steps: tuple[SubmittedStep, ...]

    def write(self) -> None:
        """Put it on file."""
        steps = [asdict(step) for step in self.steps]
        value = {"format": FORMAT, "version": VERSION, "asked": self.asked, "user": self.user, "steps": steps}
        publish_json(self.folder / RECORD, value)

    @classmethod
    def read(cls, folder: Path) -> Submission:
        """What is on file.

        Raises:
            StoreError: It is damaged, or another version's.
        """
        try:
            value: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if (value["format"], value["version"]) != (FORMAT, VERSION):
                raise ValueError(f"{value['format']} version {value['version']}")
            steps = tuple(_step(one) for one in value["steps"])
            return cls(folder, folder.name, value["asked"], value["user"], steps)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"can't be read as a submission: {error!r}", where=str(folder / RECORD)) from None

    def script(self, step: str) -> Path:
        """The batch script of a step."""
        return self.folder / f"{step}.sbatch"

    def record(self, step: str, number: int) -> Path:
        """When an element began and how it ended."""
        return self.folder / "elements" / f"{step}-{number}.json"

    def log(self, step: str, number: int) -> Path:
        """What an element said."""
        return self.folder / "logs" / f"{step}-{number}.log"


def _step(value: dict[str, Any]) -> SubmittedStep:
    handed = tuple(Handed(one["job"], tuple(one["elements"]), one["at"]) for one in value.pop("handed"))
    return SubmittedStep(**value, handed=handed)


def submissions(run: Run) -> list[Submission]:
    """All of a run, the oldest first."""
    return [Submission.read(path.parent) for path in sorted(run.jobs.glob(f"*/{RECORD}"))]


def next_folder(run: Run) -> Path:
    """Where the next submission will lie; not made yet."""
    taken = [int(path.name) for path in run.jobs.glob("[0-9]*") if path.name.isdigit()]
    return run.jobs / f"{max(taken, default=0) + 1:04d}"


def submit(folder: Path, asked: str, steps: Sequence[Step], settings: RunSettings) -> Submission:
    """Write the scripts and hand them to Slurm, each step to wait for the one before; all of them or none.

    Args:
        settings: For the elements.

    Raises:
        MissingError: There is no sbatch on this machine.
        SettingsError: Slurm doesn't take a step.
    """
    for part in ("elements", "logs"):
        (folder / part).mkdir(parents=True)
    publish_text(folder / SETTINGS, to_yaml(settings))
    one = Submission(folder, folder.name, asked, this_user(), ())
    for step in steps:
        publish_text(one.script(step.name), script(step, folder, settings))
    whole = False
    try:
        before = None
        for step in steps:
            options: list[str] = [] if before is None else [f"--dependency={step.after}:{before}"]
            before = sbatch(one.script(step.name), options)
            handed = Handed(before, step.elements, time.time())
            kept = SubmittedStep(step.name, step.parts, step.units, step.left, step.after, (handed,))
            one = replace(one, steps=(*one.steps, kept))
        one.write()
        whole = True
    finally:
        if not whole:
            scancel([handed.job for step in one.steps for handed in step.handed])
    return one


def hand_again(one: Submission, again: dict[str, list[int]], waits_for: dict[str, list[str]]) -> Submission:
    """Submit elements once more.

    Args:
        again: Step -> numbers of its elements, in the order of the steps.
        waits_for: Step -> jobs and elements still in the queue that it has to wait for beside what is handed in now.
    """
    steps, before = list(one.steps), None
    for place, step in enumerate(one.steps):
        numbers = again.get(step.name)
        if not numbers:
            before = None
            continue
        ids = [*([before] if before else []), *waits_for.get(step.name, [])]
        options = [f"--array={array_of(numbers)}", *([f"--dependency={step.after}:{':'.join(ids)}"] if ids else [])]
        before = sbatch(one.script(step.name), options)
        steps[place] = replace(step, handed=(*step.handed, Handed(before, tuple(numbers), time.time())))
        one = replace(one, steps=tuple(steps))
        one.write()
    return one

"""Slurm's queue, asked by its own commands: sbatch, squeue, scancel."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathpipe.errors import MissingError, SettingsError


@dataclass(frozen=True)
class Queued:
    """What the queue says of an element.

    Attributes:
        state: `PENDING`, `RUNNING`, ... in Slurm's words.
        why: Why it waits, e.g. `Resources`.
    """

    state: str
    why: str


def sbatch(script: Path, options: Sequence[str]) -> str:
    """Submit a script.

    Returns:
        The id of the job.

    Raises:
        MissingError: There is no sbatch on this machine.
        SettingsError: Slurm doesn't take it.
    """
    if shutil.which("sbatch") is None:
        raise MissingError(
            "there is no `sbatch` on this machine", where="--on slurm", hint="submit from a login node of the cluster"
        )
    done = subprocess.run([*command(script, options)], capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit {done.returncode}"
        raise SettingsError(f"Slurm refuses it: {said}", where=str(script), hint="`--dry-run` shows the script")
    return done.stdout.strip().partition(";")[0]  # `ID;CLUSTER` where there are several clusters


def command(script: Path, options: Sequence[str]) -> list[str]:
    """The command line that submits a script."""
    return ["sbatch", "--parsable", *options, str(script)]


def queued(jobs: Iterable[str], user: str) -> dict[tuple[str, int], Queued] | None:
    """(job, number of the element) -> what the queue says, for those in it; None where it can't be asked."""
    if shutil.which("squeue") is None:
        return None
    question = ["squeue", "--noheader", "--array", "--format=%F|%K|%T|%r", f"--user={user}"]
    done = subprocess.run(question, capture_output=True, text=True)
    if done.returncode:
        return None
    wanted, found = set(jobs), {}
    for line in done.stdout.splitlines():
        job, number, state, why = line.strip().split("|", 3)
        if job in wanted and number.isdigit():
            found[job, int(number)] = Queued(state, why)
    return found


def scancel(names: Sequence[str]) -> None:
    """Take jobs (`12`) or elements (`12_3`) out of the queue; those that are gone already don't matter."""
    if names:
        subprocess.run(["scancel", *names], capture_output=True)


def this_user() -> str:
    """Who submits."""
    return getpass.getuser()

"""One unit brought up to date: the only place that decides what is current, and the only bulkhead."""

from __future__ import annotations

import errno
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pathpipe.errors import LeakError, PathpipeError, StoreError
from pathpipe.execution.receipt import Receipt, State, read_receipt
from pathpipe.lease import Lease
from pathpipe.progress import Notify, Progress, silent
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.publish import now_on, publish, sweep
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.stage import Job, Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """Why a piece of work came to nothing.

    Attributes:
        trace: Python's traceback, where nobody foresaw it.
        refused: Whether it would have leaked test data into training.
    """

    reason: str
    hint: str | None = None
    trace: str | None = None
    refused: bool = False


def contain(work: Callable[[], T]) -> T | Failure:
    """The bulkhead: what one slide does must not stop the cohort. Only an interrupt passes through."""
    try:
        return work()
    except PathpipeError as error:
        return Failure(error.reason, error.hint, refused=isinstance(error, LeakError))
    except OSError as error:
        return Failure(*explain_os_error(error))
    except MemoryError:
        return Failure("not enough memory", "use fewer --workers")
    except Exception as error:
        return Failure(f"unforeseen {type(error).__name__}: {error}", trace=traceback.format_exc())


def bring_up_to_date(stage: Stage, run: Run, key: str, settings: RunSettings, notify: Notify = silent) -> Receipt:
    """Make a unit's artefact unless a valid one of the same settings and inputs is there.

    Whatever goes wrong with the unit ends in a `failed` receipt; only an interrupt passes through.
    """
    started = time.monotonic()
    receipt = contain(lambda: _passed(stage, run, key, settings, notify))
    if isinstance(receipt, Failure):
        hint = receipt.hint
        if receipt.trace is not None:
            hint = f"please report it with the traceback in {run.receipt(stage.name, key)}"
        refused = receipt.refused
        receipt = Receipt(stage.name, key, "failed", receipt.reason, hint, trace=receipt.trace, refused=refused)
    return _noted(run, receipt, started)


def look_at(stage: Stage, run: Run, key: str, settings: RunSettings) -> Receipt | None:
    """What `bring_up_to_date` would return without making anything; None when it would make it, or fail."""
    started = time.monotonic()

    def seen() -> Receipt | None:
        output = stage.output(run, key, settings)
        found = _look(stage, key, output, stage.provenance(run, key, settings), settings) if output.exists() else None
        if found is not None and stage.gate is not None and found.ok:
            stage.gate(output, settings)
        return found

    receipt = contain(seen)
    return None if receipt is None or isinstance(receipt, Failure) else _noted(run, receipt, started)


def _noted(run: Run, receipt: Receipt, started: float) -> Receipt:
    if receipt.state == "busy" or (receipt.state == "current" and _known_well(run, receipt)):
        return receipt
    return _keep(run, replace(receipt, seconds=round(time.monotonic() - started, 3), host=socket.gethostname()))


def _passed(stage: Stage, run: Run, key: str, settings: RunSettings, notify: Notify) -> Receipt:
    """Bring it up to date, and ask whether what it says lets the chain go on."""
    receipt = _attempt(stage, run, key, settings, notify)
    if stage.gate is not None and receipt.ok:
        stage.gate(stage.output(run, key, settings), settings)
    return receipt


def _attempt(stage: Stage, run: Run, key: str, settings: RunSettings, notify: Notify) -> Receipt:
    expected = stage.provenance(run, key, settings)
    output = stage.output(run, key, settings)
    found = _look(stage, key, output, expected, settings)
    if found is not None:
        return found
    output.parent.mkdir(parents=True, exist_ok=True)
    lease = Lease.acquire(run.lease(stage.name, key), lasts_s=settings.execution.lease_s)
    if lease is None:
        return Receipt(stage.name, key, "busy", "another worker is making it")
    with lease:
        try:
            return _make(stage, Job(run, key, settings, output, expected, notify, lease), lease)
        except Exception:
            if not lease.taken():
                raise
            # Whatever went wrong, it did so because the unit is another worker's now.
            return Receipt(stage.name, key, "busy", "its lease was lost while it was being made (a paused process?)")


def _make(stage: Stage, job: Job, lease: Lease) -> Receipt:
    """Make and publish `job.target`, if the last owner of the lease hasn't, a moment ago."""
    output, expected = job.target, job.provenance
    now_on(output.parent)  # a client of NFS may not have seen it yet
    found = _look(stage, job.key, output, expected, job.settings)
    if found is not None:
        return found
    sweep(output.parent)

    def notify(progress: Progress) -> None:
        lease.keep()
        job.notify(progress)

    with publish(output, lease) as target:
        made = stage.make(replace(job, target=target, notify=notify))
        stage.check(target)
    return Receipt(
        stage.name,
        job.key,
        made.state,
        made.reason,
        fingerprint=expected.fingerprint,
        counts=made.counts,
        spent=made.spent,
    )


def _look(stage: Stage, key: str, path: Path, expected: Provenance, settings: RunSettings) -> Receipt | None:
    """A receipt when what lies there can stay; None when it must be made."""
    if not path.exists():
        return None
    found = read_provenance(path)
    try:
        made = stage.check(path)
    except StoreError:
        return None  # damaged: not a result, so there is nothing to lose
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None  # replaced while it was read
        raise
    if found is None:
        return None
    if found.fingerprint == expected.fingerprint or settings.execution.stale == "keep":
        state: State = "empty" if made.state == "empty" else "current"
        return Receipt(stage.name, key, state, made.reason, None, found.fingerprint, counts=made.counts)
    if settings.execution.stale == "remake" or stage.view:
        return None
    changes = found.differences(expected)
    shown = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
    return Receipt(
        stage.name,
        key,
        "stale",
        f"was made from something else ({shown})",
        "`--stale remake` makes it again, `--stale keep` uses it as it is; or start another run with `-o`",
    )


def _known_well(run: Run, receipt: Receipt) -> bool:
    """Whether the last receipt isn't of trouble, e.g. with settings that have been taken back since."""
    before = read_receipt(run, receipt.stage, receipt.key)
    return before is None or before.ok


def _keep(run: Run, receipt: Receipt) -> Receipt:
    before = read_receipt(run, receipt.stage, receipt.key)
    if before is not None and before.state == "failed":
        receipt = replace(receipt, attempts=before.attempts + 1)
    try:
        receipt.write(run)
    except OSError as error:  # a full disk mustn't hide what happened to the unit
        if receipt.reason is None:
            return replace(receipt, reason=f"its receipt can't be written: {explain_os_error(error)[0]}")
    return receipt


def explain_os_error(error: OSError) -> tuple[str, str | None]:
    """What the system says, where, and what can be done about it."""
    where = f"{error.filename}: " if error.filename else ""
    hints = {28: "free some space and run again", 13: "check the permissions", 30: "the disk is read-only"}
    return f"{where}{error.strerror or error}", hints.get(error.errno or 0)

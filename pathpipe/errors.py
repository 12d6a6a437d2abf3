"""Every error a person can meet: what is wrong, where, and what to do; and the exit code it leads to."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every `pathpipe` command."""

    DONE = 0
    SOME_FAILED = 1  # finished, but more units failed than --max-failures allows
    BAD_REQUEST = 2  # usage, settings, cohort or stale results
    MISSING = 3  # something outside is missing: weights, a GPU, an optional package
    REFUSED = 4  # refused on scientific grounds (leakage)
    PREEMPTED = 75  # told to make room by a scheduler: what is committed stays, and the same command goes on
    INTERRUPTED = 130  # safe to run again


class PathpipeError(Exception):
    """A problem that pathpipe understands and can explain in one paragraph.

    Args:
        what: One clause saying what is wrong.
        where: The slide, file, column or setting it concerns.
        hint: What the reader can do about it.
    """

    exit_code: ExitCode = ExitCode.BAD_REQUEST

    def __init__(self, what: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    @property
    def reason(self) -> str:
        """What and where on one line."""
        return f"{self.where}: {self.what}" if self.where else self.what

    def __str__(self) -> str:
        return f"{self.reason} (hint: {self.hint})" if self.hint else self.reason


class SettingsError(PathpipeError):
    """A setting is unknown, out of bounds or contradicts another."""


class CohortError(PathpipeError):
    """The cohort table, a split or a label column can't be used as asked."""


class SlideError(PathpipeError):
    """One slide can't be read or has no usable resolution; the rest of the cohort goes on."""

    exit_code = ExitCode.SOME_FAILED


class RemoteError(SlideError):
    """An object store or a web server doesn't give what is asked of it; the rest of the cohort goes on."""


class RemoteFinalError(RemoteError):
    """A refusal that asking again won't change."""


class RemoteMissingError(RemoteFinalError):
    """There is nothing at a URL."""


class StoreError(PathpipeError):
    """A file pathpipe reads is not what it should be: damaged, foreign or of another version."""


class LeaseLostError(PathpipeError):
    """What a worker has in hand isn't its own any more: another may have taken it over."""

    exit_code = ExitCode.SOME_FAILED


class StaleError(PathpipeError):
    """A result on disk was made from other inputs or settings than the ones asked for now."""


class MissingError(PathpipeError):
    """Something outside pathpipe is needed and absent: weights, a device, an optional package."""

    exit_code = ExitCode.MISSING


class LeakError(PathpipeError):
    """The request would leak test data into training."""

    exit_code = ExitCode.REFUSED

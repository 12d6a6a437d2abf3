"""Stage: a pure function with a name, a version and a way to tell whether its result is current."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pathpipe.progress import Notify, silent
from pathpipe.provenance import Provenance
from pathpipe.publish import Claim
from pathpipe.run import Run
from pathpipe.settings import PLACES, RunSettings
from pathpipe.tissue.method import without_files

# whose version may change a pixel
READERS = ("openslide-python", "openslide-bin", "tiffslide", "tifffile", "imagecodecs", "simplejpeg", "zarr")


@dataclass(frozen=True)
class Made:
    """What a stage says of the artefact it made or found.

    Attributes:
        state: `done`, or `empty` when there is rightly nothing in it.
        reason: Why it is empty, or a warning worth showing.
        counts: Numbers for people, e.g. tiles.
        spent: Activity -> seconds, where the time went.
    """

    state: Literal["done", "empty"] = "done"
    reason: str | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One unit of work, handed to `Stage.make`.

    Attributes:
        target: Where to write: a hidden path that is renamed to the artefact when `make` returns.
        provenance: To be stored inside the artefact.
        claim: For whatever else `make` publishes: a worker that has lost the unit must not.
    """

    run: Run
    key: str
    settings: RunSettings
    target: Path
    provenance: Provenance
    notify: Notify = silent
    claim: Claim | None = None


@dataclass(frozen=True)
class Stage:
    """Nouns in, one artefact out.

    Attributes:
        name: Also the folder of its receipts and the word people see.
        version: Raise it when equal inputs would give another result.
        packages: Distributions whose versions are recorded in the artefact.
        what: The settings that matter, JSON-able; they are hashed.
        inputs: Name -> fingerprint of everything it reads.
        output: Where its artefact lies.
        make: Write `job.target`.
        check: Validate an artefact's content; raises StoreError.
        preflight: Raise now what would fail every unit, e.g. missing weights.
        gate: What a valid artefact has to pass before the chain goes on: raises e.g. when an audit found a leak, or
            when features can't be copied to a bucket; the artefact stays.
        view: Its artefact only shows what lies elsewhere in the run: a stale one is made anew without asking.
        always: It is made whatever failed before it, and shows that.
    """

    name: str
    version: int
    packages: tuple[str, ...]
    what: Callable[[RunSettings], dict[str, Any]]
    inputs: Callable[[Run, str, RunSettings], dict[str, str]]
    output: Callable[[Run, str, RunSettings], Path]
    make: Callable[[Job], Made]
    check: Callable[[Path], Made]
    preflight: Callable[[Run, RunSettings], None] | None = None
    gate: Callable[[Path, RunSettings], None] | None = None
    view: bool = False
    always: bool = False

    def provenance(self, run: Run, key: str, settings: RunSettings) -> Provenance:
        """What a current artefact of this unit would say of itself."""
        return Provenance(
            stage=self.name,
            version=self.version,
            settings=self.what(settings),
            inputs=self.inputs(run, key, settings),
            made_by=versions("pathpipe", *self.packages),
        )


def sections(*names: str) -> Callable[[RunSettings], dict[str, Any]]:
    """`what` of a stage whose result depends on whole sections of the settings, less the places of its inputs."""

    def what(settings: RunSettings) -> dict[str, Any]:
        values = settings.model_dump(mode="json", include=set(names), exclude=PLACES)
        if "tissue" in names:
            options = values["tissue"]["method_settings"]
            values["tissue"]["method_settings"] = without_files(settings.tissue.method, options)
        return {name: values[name] for name in names}

    return what


def versions(*distributions: str) -> dict[str, str]:
    """Distribution -> installed version."""
    return {name: _version(name) for name in distributions}


@cache  # asked of every unit, and read from a file each time
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"

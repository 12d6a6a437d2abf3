"""Origins: where the artefacts of a run come from: versions and fingerprints of what made them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pathpipe.errors import PathpipeError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.report.origins import Origin
from pathpipe.report.words import counted
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import COHORT, STAGES, units
from pathpipe.stages.train import MODEL
from pathpipe.training.checkpoint import load_checkpoint

_STAGES = ("tissue", "tile", "extract", "split", "audit", "train", "evaluate", "heatmap", "explanations")


def origins_of(run: Run, settings: RunSettings) -> tuple[Origin, ...]:
    """One row a stage: its only artefact, or all of them under one fingerprint; and the encoder's own."""
    return (*_encoder(run, settings), *(one for stage in _STAGES for one in _origin(run, stage, settings)))


def _origin(run: Run, stage: str, settings: RunSettings) -> Iterator[Origin]:
    found = {key: made for key, path in _outputs(run, stage, settings) if (made := read_provenance(path)) is not None}
    if not found:
        return
    versions = sorted({made.version for made in found.values()})
    if list(found) == [COHORT]:
        yield Origin(stage, "one for the cohort", versions[-1], found[COHORT].fingerprint)
        return
    whole = fingerprint({key: made.fingerprint for key, made in found.items()})
    yield Origin(stage, f"{counted(len(found), 'artefact')}, together", versions[-1], whole)


def _outputs(run: Run, stage: str, settings: RunSettings) -> list[tuple[str, Path]]:
    try:
        return [(key, STAGES[stage].output(run, key, settings)) for key in units(run, stage, settings)]
    except PathpipeError:
        return []


def _encoder(run: Run, settings: RunSettings) -> Iterator[Origin]:
    """Its weights and preprocessing, as the first trained fold keeps them."""
    for _, path in _outputs(run, "train", settings):
        if path.exists():
            identity = load_checkpoint(path / MODEL).encoder
            name = str(identity.get("name", ""))
            yield Origin("encoder", name, 1, str(identity.get("weights_sha256", "")))
            return


def packages_of(run: Run, settings: RunSettings) -> dict[str, str]:
    """Package -> versions that made an artefact of the run, by name."""
    versions: dict[str, set[str]] = {}
    for stage in _STAGES:
        for _, path in _outputs(run, stage, settings):
            made: Provenance | None = read_provenance(path)
            for name, version in (made.made_by if made else {}).items():
                versions.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions[name])) for name in sorted(versions)}

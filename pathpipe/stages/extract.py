"""Stage `extract`: the features of one slide."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathpipe.clock import Clock
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.load import encoder_identity, load_for, pick_devices
from pathpipe.encoders.stain import stain_target, stained
from pathpipe.errors import MissingError, StoreError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.publish import look_anew, publish
from pathpipe.run import Run, safe_name
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import for_encoder, further_encoders
from pathpipe.stages.encoding import Part, encode
from pathpipe.stages.stage import READERS, Job, Made, Stage, sections
from pathpipe.store.bucket import publish_features, refuse_closed
from pathpipe.store.features import ZARR_SUFFIX, read_header
from pathpipe.tiles.table import read_tiles
from pathpipe.url import Url


def what(settings: RunSettings) -> dict[str, Any]:
    """Settings that matter; the encoder and its weights are an input, known by content and not by path."""
    return sections("slide", "tissue", "tile", "extract")(settings)


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The tiles, and the very weights and transform of the encoder."""
    made = read_provenance(run.tiles(key))
    if made is None:
        raise StoreError("there is no tile table", where=str(run.tiles(key)), hint="run `pathpipe tile` first")
    return {**made.inputs, "tiles": made.fingerprint, "encoder": _encoder_fingerprint(run, key, settings)}


def _encoder_fingerprint(run: Run, key: str, settings: RunSettings) -> str:
    """Of the encoder; where its weights are out of reach, the one recorded in features that are there already."""
    extract = settings.extract
    try:
        identity = encoder_identity(extract.encoder, extract.weights, settings.execution.offline)
        return stained(identity, stain_target(extract)).fingerprint
    except MissingError:
        made = read_provenance(run.features(extract.encoder, key))
        if made is None or extract.weights is not None:
            raise
        return made.inputs["encoder"]


def make(job: Job) -> Made:
    """Encode every tile of one slide, going on from rows an earlier attempt committed."""
    table, clock = read_tiles(job.run.tiles(job.key)), Clock()
    with ExitStack() as opened:
        asked = [(job.settings, job.provenance), *_along(job)]
        part, *others = parts = [opened.enter_context(Part.opened(job, *one)) for one in asked]
        encode(job, table.grid, parts, clock)
        with clock.spend("write"):
            part.write(job.target, table)
            for other in others:
                with publish(job.run.features(other.settings.extract.encoder, job.key), job.claim) as target:
                    other.write(target, table)
    made = _made(len(table.grid.xy0), table.grid.empty_reason)
    return replace(made, counts={**made.counts, **part.counts}, spent=clock.seconds)


def _along(job: Job) -> list[tuple[RunSettings, Provenance]]:
    """Encoders that are fed with the same tiles: those asked for whose features aren't there in any form."""
    found = []
    for name in further_encoders(job.settings):
        settings = for_encoder(job.settings, name)
        look_anew(job.run.features_of(name))
        if not job.run.features(name, job.key).exists():
            found.append((settings, STAGE.provenance(job.run, job.key, settings)))
    return found


def check(path: Path) -> Made:
    """Read the file back."""
    header, rows = read_header(path)
    return _made(rows, header.empty_reason)


def preflight(run: Run, settings: RunSettings) -> None:
    """Weights and device are there before the first slide is opened, if any slide is still to be encoded."""
    extract = settings.extract
    encoder_record(extract.encoder, extract.weights)
    if settings.execution.publish_to is not None:
        refuse_closed(Url(settings.execution.publish_to))
    if all(run.features(extract.encoder, slide.slide_id).exists() for slide in run.cohort.slides):
        return
    stain_target(extract)
    if settings.execution.gpus is None and settings.execution.on == "local":
        load_for(settings)
        return
    # the processes that encode load it: this one would only take room on a GPU, or has none
    if settings.execution.gpus is not None:
        pick_devices(settings.execution.gpus)
    encoder_identity(extract.encoder, extract.weights, settings.execution.offline)


def gate(path: Path, settings: RunSettings) -> None:
    """Where a bucket is named, the chain goes on once the features are there too, whole."""
    if settings.execution.publish_to is not None:
        folder = Url(settings.execution.publish_to) / safe_name(settings.extract.encoder)
        publish_features(path, folder / f"{path.stem}{ZARR_SUFFIX}")


def _made(rows: int, empty_reason: str | None) -> Made:
    return Made("empty" if empty_reason else "done", empty_reason, {"tiles": rows})


STAGE = Stage(
    name="extract",
    version=2,
    packages=("torch", "timm", "numpy", "h5py", "opencv-python-headless", *READERS),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.features(settings.extract.encoder, key),
    make=make,
    check=check,
    preflight=preflight,
    gate=gate,
)

"""Stage `embed`: one vector a slide, made of the features of its tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.encoders.load import pick_device
from pathpipe.encoders.slide.catalogue import load_slide_encoder, slide_encoder_card
from pathpipe.encoders.slide.slide_encoder import SlideTiles
from pathpipe.errors import StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.store.embeddings import Embedding, read_embedding, write_embedding
from pathpipe.store.features import Features, read_features


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The slide's features, and the very slide encoder."""
    features = read_provenance(run.features(settings.extract.encoder, key))
    if features is None:
        raise StoreError("the slide has no features", where=key, hint="`pathpipe extract` says why")
    encoder = load_slide_encoder(settings.embed.slide_encoder, pick_device(settings.execution.device))
    return {"features": features.fingerprint, "slide encoder": fingerprint(dict(encoder.identity))}


def make(job: Job) -> Made:
    """Embed one slide; a slide without tiles has an empty vector and says why."""
    name = job.settings.embed.slide_encoder
    features = read_features(job.run.features(job.settings.extract.encoder, job.key))
    encoder = load_slide_encoder(name, pick_device(job.settings.execution.device))
    tiles = _tiles(features)
    slide_encoder_card(name).needs.check(name, tiles.encoder, tiles.tile_um)
    vector = encoder.embed(tiles) if len(features.features) else np.empty(0, np.float32)
    embedding = Embedding(
        vector=vector,
        slide_id=job.key,
        slide_encoder=encoder.identity,
        encoder=features.encoder,
        tiles=len(features.features),
        empty_reason=features.empty_reason,
        provenance=job.provenance,
    )
    write_embedding(job.target, embedding)
    return _made(embedding)


def check(path: Path) -> Made:
    """Read the file back."""
    return _made(read_embedding(path))


def preflight(run: Run, settings: RunSettings) -> None:
    """The contract is met by what is asked for, and the slide encoder is there, before a tile is encoded."""
    name, tile = settings.embed.slide_encoder, settings.tile
    slide_encoder_card(name).needs.check(name, settings.extract.encoder, tile.tile_px * tile.mpp)
    load_slide_encoder(name, pick_device(settings.execution.device))


def _tiles(features: Features) -> SlideTiles:
    plan = features.plan
    return SlideTiles(
        features=features.features,
        xy0=features.xy0,
        side0=plan.side0,
        mpp0=plan.mpp0,
        encoder=str(features.encoder["name"]),
        tile_um=plan.tile_px * plan.mpp_wanted,
    )


def _made(embedding: Embedding) -> Made:
    counts: dict[str, Any] = {"tiles": embedding.tiles, "dim": len(embedding.vector)}
    return Made("empty" if embedding.empty_reason else "done", embedding.empty_reason, counts)


STAGE = Stage(
    name="embed",
    version=1,
    packages=("numpy", "h5py"),
    what=sections("embed"),
    inputs=inputs,
    output=lambda run, key, settings: run.embedding(settings.extract.encoder, settings.embed.slide_encoder, key),
    make=make,
    check=check,
    preflight=preflight,
)

"""Extraction for several encoders: what it publishes itself, beside its artefact, is fenced too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import LeaseLostError
from pathpipe.lease import Lease
from pathpipe.provenance import Provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages import extract
from pathpipe.stages.chain import for_encoder
from pathpipe.stages.stage import Job


@dataclass
class _Part:
    settings: RunSettings
    written: list[Path]
    counts: dict[str, float]

    def write(self, path: Path, table: object) -> None:
        path.write_text(self.settings.extract.encoder)
        self.written.append(path)


@pytest.mark.parametrize("lost", [False, True])
def test_further_encoders_are_published_by_the_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    (tmp_path / "S1.svs").write_text("pixels")
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "S1.svs"))
    asked = merge(RunSettings, [("test", {"extract": {"encoder": "one"}})])[0]
    lease = Lease.acquire(run.lease("extract", "S1"))
    assert lease is not None
    written: list[Path] = []

    @contextmanager
    def opened(job: Job, settings: RunSettings, provenance: Provenance) -> Iterator[_Part]:
        yield _Part(settings, written, {})

    def encode(*_: object) -> None:
        if lost:
            lease.path.write_text('{"token": "of somebody else"}')

    made = Provenance("extract", 1, {}, {})
    monkeypatch.setattr(
        extract, "read_tiles", lambda path: SimpleNamespace(grid=SimpleNamespace(xy0=[], empty_reason=""))
    )
    monkeypatch.setattr(extract, "Part", SimpleNamespace(opened=opened))
    monkeypatch.setattr(extract, "_along", lambda job: [(for_encoder(asked, name), made) for name in ("two", "three")])
    monkeypatch.setattr(extract, "encode", encode)
    target = run.features("one", "S1").with_name("target")
    target.parent.mkdir(parents=True)
    job = Job(run, "S1", asked, target, made, claim=lease)
    if lost:
        with pytest.raises(LeaseLostError):
            extract.make(job)
    else:
        extract.make(job)
    lease.release()
    files = sorted(path.relative_to(run.folder / "features") for path in (run.folder / "features").rglob("*.h5"))
    assert list(map(str, files)) == ([] if lost else ["three/S1.h5", "two/S1.h5"])
    assert len(written) == (1 if lost else 3), "nothing is written for a target that can't be published"

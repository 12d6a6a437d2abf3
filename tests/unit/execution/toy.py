"""A stage of a file or a folder, made in no time, for tests of what goes on around a stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pathpipe.errors import StoreError
from pathpipe.progress import Progress
from pathpipe.provenance import FOLDER_FILE
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.stage import Job, Made, Stage, sections


def settings(lease_s: float = 300.0, **tile: float) -> RunSettings:
    """With leases that may last shorter than people may ask for."""
    made = merge(RunSettings, [("test", {"tile": tile, "execution": {"stale": "remake"}})])[0]
    return made.model_copy(update={"execution": made.execution.model_copy(update={"lease_s": lease_s})})


def stage(make: Callable[[Job], Made], is_file: bool = False) -> Stage:
    """Its artefact is toy/KEY, a folder, or toy/KEY.geojson, a file."""
    return Stage(
        name="toy",
        version=1,
        packages=(),
        what=sections("tile"),
        inputs=lambda run, key, settings: {},
        output=lambda run, key, settings: run.folder / "toy" / (f"{key}.geojson" if is_file else key),
        make=make,
        check=_check,
    )


def write(job: Job, content: str = "whole", sign_of_life: bool = True) -> Made:
    """What `make` does."""
    provenance = job.provenance.to_dict()
    if job.target.suffix == ".geojson":
        job.target.write_text(json.dumps({"content": content, "pathpipe": {"provenance": provenance}}))
    else:
        job.target.mkdir()
        (job.target / "content").write_text(content)
        (job.target / FOLDER_FILE).write_text(json.dumps(provenance))
    if sign_of_life:
        job.notify(Progress("toy", job.key, 1, 1))
    return Made()


def content(run: Run, key: str) -> str:
    """What was published."""
    file = run.folder / "toy" / f"{key}.geojson"
    if file.exists():
        return str(json.loads(file.read_text())["content"])
    return (run.folder / "toy" / key / "content").read_text()


def leftovers(run: Run) -> list[str]:
    """Leases, and whatever is hidden."""
    files = [path for path in run.folder.rglob("*") if path.is_file() or path.name.startswith(".")]
    return [str(path) for path in files if "leases" in path.parts or path.name.startswith(".")]


def _check(path: Path) -> Made:
    file = path if path.is_file() else path / "content"
    if "damaged" in file.read_text():
        raise StoreError("damaged")
    return Made()

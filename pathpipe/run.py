"""Run: a folder that describes itself. The only file that knows where things lie in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pathpipe.cohort import Cohort
from pathpipe.errors import SettingsError, StoreError
from pathpipe.publish import publish_json, publish_text
from pathpipe.settings import HOW, RunSettings, merge, read_yaml, to_yaml

FORMAT = "pathpipe-run"
VERSION = 1


@dataclass(frozen=True)
class Run:
    """Paths of everything one cohort and one set of settings lead to."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run.

        Raises:
            SettingsError: The folder is not a run.
            StoreError: It was laid out by another version.
        """
        run = cls(folder)
        if not run._layout.exists():
            raise SettingsError(
                "is not a run folder (it has no layout.json)",
                where=str(folder),
                hint="give a cohort table or a folder of slides with `-o RUN`, or an existing run",
            )
        layout = json.loads(run._layout.read_text())
        if layout != {"format": FORMAT, "version": VERSION}:
            raise StoreError(
                f"has layout {layout}, this pathpipe reads version {VERSION}",
                where=str(folder),
                hint="start a new run with `-o`, or use the pathpipe that made this one",
            )
        return run

    @classmethod
    def create(cls, folder: Path, cohort: Cohort) -> Run:
        """Lay out a run for a cohort; an existing run takes the new table (results stay, checked by content).

        Raises:
            SettingsError: There is a file in its place.
        """
        run = cls.open(folder) if cls.exists(folder) else cls(folder)
        if folder.exists() and not folder.is_dir():
            raise SettingsError("is a file, and a run is a folder", where=str(folder), hint="give another `-o RUN`")
        folder.mkdir(parents=True, exist_ok=True)
        cohort.write(run.cohort_csv)
        publish_json(run._layout, {"format": FORMAT, "version": VERSION})
        return run

    @classmethod
    def with_cohort(cls, folder: Path, cohort: Cohort) -> Run:
        """A run as `create` would lay it out, to look at only: nothing is written."""
        run = cls(folder)
        run.__dict__["cohort"] = cohort  # where the cached property keeps it
        return run

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the folder is laid out as a run."""
        return Run(folder)._layout.exists()

    @cached_property
    def cohort(self) -> Cohort:
        """The run's own cohort."""
        return Cohort.read(self.cohort_csv)

    def saved_settings(self) -> dict[str, object]:
        """The values of the run's settings.yaml; empty for a new run."""
        return read_yaml(self.settings_yaml) if self.settings_yaml.exists() else {}

    def settings(self) -> RunSettings:
        """The run's settings as they were last used."""
        return merge(RunSettings, [(str(self.settings_yaml), self.saved_settings())])[0]

    def save_settings(self, settings: RunSettings) -> None:
        """Remember what was asked, so that later commands need not be told again. How it was done is left out."""
        publish_text(self.settings_yaml, to_yaml(settings, leave_out=HOW))

    def restore_settings(self, values: dict[str, object]) -> None:
        """Go back to what `saved_settings` gave."""
        if values:
            self.save_settings(merge(RunSettings, [(str(self.settings_yaml), values)])[0])
        else:
            self.settings_yaml.unlink(missing_ok=True)

    @property
    def _layout(self) -> Path:
        return self.folder / "layout.json"

    @property
    def cohort_csv(self) -> Path:
        """The cohort with absolute slide paths."""
        return self.folder / "cohort.csv"

    @property
    def settings_yaml(self) -> Path:
        """All settings but execution."""
        return self.folder / "settings.yaml"

    def tissue(self, slide_id: str) -> Path:
        """Tissue polygons, GeoJSON."""
        return self.folder / "tissue" / f"{slide_id}.geojson"

    def tiles(self, slide_id: str) -> Path:
        """Tile table, HDF5."""
        return self.folder / "tiles" / f"{slide_id}.h5"

    def overlay(self, slide_id: str) -> Path:
        """QC picture beside the tile table."""
        return self.folder / "tiles" / f"{slide_id}.jpg"

    def contact_sheet(self, page: int) -> Path:
        """Overlays of the whole cohort; pages count from 1."""
        return self.folder / self.page_name(page)

    @staticmethod
    def page_name(page: int) -> str:
        """File name of a page of the contact sheet."""
        return "contact_sheet.jpg" if page == 1 else f"contact_sheet-{page}.jpg"

    def features(self, encoder: str, slide_id: str) -> Path:
        """Features, HDF5; the Zarr folder of the same name where only that is there."""
        folder = self.features_of(encoder)
        hdf5, zarr = (folder / f"{slide_id}{suffix}" for suffix in (".h5", ".zarr"))
        return zarr if zarr.is_dir() and not hdf5.exists() else hdf5

    def features_of(self, encoder: str) -> Path:
        """Folder of one encoder's features."""
        return self.folder / "features" / safe_name(encoder)

    def rows(self, encoder: str, slide_id: str) -> Path:
        """Half-made features: rows that survive a kill."""
        return self.features(encoder, slide_id).with_suffix(".rows")

    def embedding(self, encoder: str, slide_encoder: str, slide_id: str) -> Path:
        """One vector of a slide, HDF5."""
        return self.folder / "embeddings" / safe_name(encoder) / safe_name(slide_encoder) / f"{slide_id}.h5"

    def split(self, name: str) -> Path:
        """Folder of one split: splits.csv and its provenance."""
        return self.folder / "splits" / name

    def splits(self) -> list[Path]:
        """Folders of all splits there are."""
        parent = self.folder / "splits"
        return sorted(parent.iterdir()) if parent.is_dir() else []

    def audit(self, name: str) -> Path:
        """Folder of one audit: audit.json, audit.txt."""
        return self.folder / "audit" / name

    def train(self, name: str) -> Path:
        """Folder of one trained model: a folder a fold and seed."""
        return self.folder / "train" / name

    def trained(self, name: str, key: str) -> Path:
        """One fold and seed: model.pt, predictions.csv, history.csv."""
        return self.train(name) / key

    def state(self, name: str, key: str) -> Path:
        """A half-made training: what it goes on from after a kill."""
        return self.train(name) / f".{key}.state"

    def logs(self, name: str, key: str) -> Path:
        """What TensorBoard and others are told of a training."""
        return self.folder / "logs" / name / key

    def sweep(self, name: str) -> Path:
        """Folder of one search: study.journal, trials.csv, best.yaml."""
        return self.folder / "sweeps" / name

    def evaluation(self, name: str) -> Path:
        """Folder of one evaluation: evaluation.json, predictions.csv, baseline.csv."""
        return self.folder / "evaluate" / name

    def comparison(self, name: str) -> Path:
        """Folder of one comparison of models: comparison.json, differences.csv."""
        return self.folder / "compare" / name

    def heatmap(self, name: str, slide_id: str) -> Path:
        """Folder of one slide's heatmap: heatmap.png, scores.csv."""
        return self.folder / "heatmaps" / name / slide_id

    def explanations(self, name: str) -> Path:
        """Folder of what a model's heatmaps amount to: explanations.json."""
        return self.folder / "explanations" / name

    @property
    def report(self) -> Path:
        """The page that shows it all."""
        return self.folder / "report.html"

    def receipt(self, stage: str, key: str) -> Path:
        """What happened to a unit last."""
        return self.folder / "receipts" / stage / f"{key}.json"

    @property
    def jobs(self) -> Path:
        """What was handed to Slurm: a folder each time."""
        return self.folder / "jobs"

    def lease(self, stage: str, key: str) -> Path:
        """Who works on a unit now."""
        return self.folder / "leases" / stage / key


def safe_name(text: str) -> str:
    """A file name for a setting's value: `timm:vit_small` -> `timm-vit_small`."""
    return re.sub(r"[^\w.+-]+", "-", text)

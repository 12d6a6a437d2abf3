"""Provenance: every artefact says which stage, settings and inputs made it, in a place its format has for that.

| artefact          | where                                     |
|-------------------|-------------------------------------------|
| HDF5, Zarr        | root attribute `provenance` (JSON)        |
| GeoJSON           | foreign member `pathpipe`                 |
| JPEG              | comment (JSON), member `provenance`       |
| folder            | `provenance.json` inside                  |
| HTML              | first `<script type="application/json" id="provenance">` |

Nothing of the moment goes in (time, host, path): equal inputs give equal bytes. Those are in the receipt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pathpipe.fingerprint import fingerprint

FOLDER_FILE = "provenance.json"
_DIGEST = re.compile(r"\b[0-9a-f]{32,}\b")


@dataclass(frozen=True)
class Provenance:
    """What made an artefact.

    Attributes:
        stage: Stage name.
        version: The stage's version; it rises when the same inputs would give other bytes.
        settings: The settings that matter to the result.
        inputs: Name -> fingerprint of everything the stage read.
        made_by: Package -> version. Recorded, not part of the fingerprint.
    """

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    made_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of stage, version, settings and inputs."""
        return fingerprint(
            {
                "stage": self.stage,
                "version": self.version,
                "settings": dict(self.settings),
                "inputs": dict(self.inputs),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, with the fingerprint written out for people and other tools."""
        return {**asdict(self), "fingerprint": self.fingerprint}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Provenance:
        """Inverse of `to_dict`."""
        return cls(value["stage"], value["version"], value["settings"], value["inputs"], value.get("made_by", {}))

    def differences(self, other: Provenance) -> list[str]:
        """What changed from `self` to `other`, one phrase each: `settings.tile.mpp: 0.5 -> 0.25`."""
        old, new = _flat(self), _flat(other)
        names = [*old, *(name for name in new if name not in old)]
        return [
            f"{name}: {_short(old.get(name, 'absent'))} -> {_short(new.get(name, 'absent'))}"
            for name in names
            if old.get(name) != new.get(name)
        ]


def read_provenance(path: Path) -> Provenance | None:
    """The provenance of an artefact, or None where there is no artefact, or none that says what made it."""
    try:
        value = _read(path)
        return Provenance.from_dict(value) if value is not None else None
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    if path.is_dir() and path.suffix == ".zarr":
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return dict(json.loads(attributes["provenance"]))
    if path.is_dir():
        return dict(json.loads((path / FOLDER_FILE).read_text(encoding="utf-8")))
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            return dict(json.loads(file.attrs["provenance"]))
    if path.suffix == ".geojson":
        return dict(json.loads(path.read_text(encoding="utf-8"))["pathpipe"]["provenance"])
    if path.suffix == ".jpg":
        from PIL import Image

        with Image.open(path) as picture:
            return dict(json.loads(picture.info["comment"])["provenance"])
    if path.suffix == ".html":
        pattern = r'<script type="application/json" id="provenance">(.*?)</script>'
        match = re.search(pattern, path.read_text(encoding="utf-8"), re.DOTALL)
        return dict(json.loads(match[1])) if match else None
    return None


def _short(value: Any) -> str:
    """For people: of a digest its first digits."""
    return _DIGEST.sub(lambda digest: f"{digest[0][:12]}...", str(value))


def _flat(provenance: Provenance) -> dict[str, Any]:
    flat: dict[str, Any] = {"stage version": provenance.version}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(f"{prefix}.{name}", inner)
        else:
            flat[prefix] = value

    walk("settings", provenance.settings)
    walk("input", provenance.inputs)
    return flat

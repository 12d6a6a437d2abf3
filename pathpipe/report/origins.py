"""How to make it again: settings, commands, versions and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pathpipe.report.blocks import Block, Cell, Folded, Section, Table, Words


@dataclass(frozen=True)
class Origin:
    """Where an artefact comes from.

    Attributes:
        artefact: What it is, or which of how many.
        version: Of the stage that made it.
        fingerprint: Of its settings and inputs; of several artefacts, of all of theirs.
    """

    stage: str
    artefact: str
    version: int
    fingerprint: str


def origins_section(
    commands: Sequence[str], settings_yaml: str, origins: Sequence[Origin], packages: Mapping[str, str]
) -> Section:
    """All that is needed to make the same again, and to tell whether it is the same.

    Args:
        commands: As they are typed.
        packages: Package -> versions that made something of the run.
    """
    lines = "\n".join(commands)
    blocks: list[Block] = [
        Words(
            "Equal slides, settings and versions give equal artefacts, byte for byte on the same kind of machine. A "
            "fingerprint is made from a stage's version, its settings and the fingerprints of what it read."
        ),
        Folded("Commands", lines),
        Folded("Settings (the file settings.yaml)", settings_yaml),
        Table(
            "origins",
            ("stage", "artefact", "stage version", "fingerprint"),
            tuple((one.stage, one.artefact, one.version, Cell(f"`{one.fingerprint}`")) for one in origins),
        ),
        Folded("Versions", "\n".join(f"{name} {version}" for name, version in packages.items())),
    ]
    return Section("reproduce", "To reproduce it", tuple(blocks), "Reproduce")

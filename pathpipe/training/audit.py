"""The noun `Audit`: what was found that could make a result look better than it is, and what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pathpipe.errors import LeakError, StoreError

Severity = Literal["leak", "warning", "note"]
_SEVERITIES: tuple[str, ...] = get_args(Severity)
_SHOWN = 5
_WIDTH = 100


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        kind: What was looked for, e.g. `near-duplicate`; of leaks the word that `audit.allow` takes.
        severity: `leak`: test patients are known from training, numbers would be wrong; `warning`: numbers may mean
            something else than they seem to; `note`: looked at, and nothing to worry about.
        what: What was found, a sentence.
        meaning: What it means and what to do, a sentence or two.
        members: The slides, patients or values concerned; pairs as `A = B`.
        numbers: Name -> value.
    """

    kind: str
    severity: Severity
    what: str
    meaning: str
    members: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """All findings, leaks first.

    Attributes:
        encoder: Whose features were looked at.
        slides: Slides with features.
        patients: Their patients.
        folds: Folds of the split.
    """

    findings: tuple[Finding, ...]
    encoder: str
    slides: int
    patients: int
    folds: int

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(one for one in self.findings if one.severity == severity)

    def refuse_leaks(self, allow: Collection[str]) -> None:
        """Raise for a leak that isn't allowed.

        Raises:
            LeakError: With what was found first.
        """
        leaks = [one for one in self.of("leak") if one.kind not in allow]
        if leaks:
            kinds = ",".join(dict.fromkeys(one.kind for one in leaks))
            more = f" (and {len(leaks) - 1} more findings)" if len(leaks) > 1 else ""
            raise LeakError(
                f"{leaks[0].what}{more}",
                hint=f"{leaks[0].meaning} `pathpipe audit` shows all; `--allow-leaks {kinds}` goes on in spite of it",
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "findings": [{**asdict(one), "members": list(one.members)} for one in self.findings]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Audit:
        """Inverse of `to_dict`.

        Raises:
            StoreError: It is none.
        """
        try:
            findings = tuple(
                Finding(**{**one, "members": tuple(one["members"]), "numbers": dict(one["numbers"])})
                for one in value["findings"]
            )
            if any(one.severity not in _SEVERITIES for one in findings):
                raise ValueError("a severity is unknown")
            return cls(findings, str(value["encoder"]), *(int(value[key]) for key in ("slides", "patients", "folds")))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"does not describe an audit: {error!r}") from None

    def to_text(self) -> str:
        """For people: one paragraph a finding."""
        counts = ", ".join(f"{len(self.of(name))} {name}{'' if len(self.of(name)) == 1 else 's'}" for name in _NAMES)
        lines = [f"{self.slides} slides of {self.patients} patients, {self.folds} folds, {self.encoder}: {counts}"]
        for one in self.findings:
            lines += ["", f"{one.severity.upper():<8} {one.kind}"]
            shown = "; ".join(one.members[:_SHOWN])
            more = f"; and {len(one.members) - _SHOWN} more" if len(one.members) > _SHOWN else ""
            for text in (one.what + (f": {shown}{more}" if shown else ""), one.meaning):
                lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ") if text else []
        return "\n".join(lines) + "\n"


_NAMES: tuple[Severity, ...] = ("leak", "warning", "note")


def sorted_findings(findings: Collection[Finding]) -> tuple[Finding, ...]:
    """Leaks first, then warnings, each as they were looked for."""
    return tuple(sorted(findings, key=lambda one: _NAMES.index(one.severity)))

"""The audit: planted leaks are found, clean cohorts pass, and each finding is data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pathpipe.errors import ExitCode, LeakError, StoreError
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.training.audit import Audit, Finding, sorted_findings
from pathpipe.training.confounders import find_confounders
from pathpipe.training.leaks import AuditedSlides, Roles, find_leaks
from pathpipe.training.splits import Splits

NAMES = tuple(f"s{number:02}" for number in range(60))


def _slides(seed: int = 0, **patients: str) -> AuditedSlides:
    rng = np.random.default_rng(seed)
    means = (3 + rng.normal(size=(60, 32))).astype(np.float32)
    return AuditedSlides(
        NAMES,
        tuple(patients.get(name, f"p{name}") for name in NAMES),
        tuple((f"slide {name}", f"features {name}") for name in NAMES),
        means,
    )


def _splits(slides: AuditedSlides) -> Splits:
    """Five folds, patient i tested in fold i % 5 and validated in the next."""
    patients = list(dict.fromkeys(slides.patients))
    roles = {0: "test", 1: "val"}
    return Splits.of(
        (fold, patient, roles.get((number - fold) % 5, "train"))
        for fold in range(5)
        for number, patient in enumerate(patients)
    )


def _found(slides: AuditedSlides, splits: Splits | None = None) -> dict[tuple[str, str], Finding]:
    findings = find_leaks(slides, splits or _splits(slides), 0.999)
    return {(one.kind, one.severity): one for one in findings}


def test_a_clean_cohort_has_notes_only() -> None:
    found = _found(_slides())
    assert set(found) == {("patient-overlap", "note"), ("same-file", "note"), ("near-duplicate", "note")}
    assert found["patient-overlap", "note"].what == "no patient has two roles in any of 5 folds"


def test_one_file_under_two_names() -> None:
    slides = _slides()
    digests = list(slides.digests)
    digests[7] = ("slide s31", "features other")  # the same file, read with another resolution
    digests[8] = (
        "slide s08",
        "features s13",
    )  # another header, the same pixels
    means = slides.means.copy()
    means[[7, 8]] = means[[31, 13]]
    found = _found(AuditedSlides(slides.slide_ids, slides.patients, tuple(digests), means))
    leak = found["same-file", "leak"]
    assert leak.members == ("s07 = s31",)
    assert found["same-file", "warning"].members == ("s08 = s13",), "8 and 13 are in the same role of every fold"
    assert ("near-duplicate", "leak") not in found, "said once"
    same = _found(AuditedSlides(slides.slide_ids, _slides(s08="ps13").patients, tuple(digests), means))
    assert same["same-file", "warning"].what == "1 pairs of slides of one patient are the same slide"


def test_near_duplicates_stand_out_from_the_cohort() -> None:
    slides = _slides()
    noise = np.random.default_rng(1).normal(size=(60, 32)).astype(np.float32)
    means = slides.means.copy()
    means[40] = means[3] + 0.003 * noise[40]
    found = _found(AuditedSlides(slides.slide_ids, slides.patients, slides.digests, means))
    leak = found["near-duplicate", "leak"]
    assert leak.members == ("s03 = s40",)
    assert leak.numbers["closest"] > leak.numbers["threshold"] >= 0.999 > leak.numbers["typical"]
    alike = (100 + slides.means).astype(np.float32)  # all cosines above 0.999: usual here, so nobody is suspected
    usual = _found(AuditedSlides(slides.slide_ids, slides.patients, slides.digests, alike))
    assert usual["near-duplicate", "note"].numbers["typical"] > 0.9999


def test_patients_of_one_case() -> None:
    slides = _slides(s00="TCGA-2F-A9KO-01Z", s01="TCGA-2F-A9KO-11A", s02="case 07", s03="Case_7", s04="case 70")
    found = _found(slides)
    assert found["same-patient", "leak"].members == ("TCGA-2F-A9KO-01Z = TCGA-2F-A9KO-11A",)
    assert found["same-patient", "warning"].members == ("Case_7 = case 07",)


def _confounded(strength: float, seed: int = 0) -> tuple[AuditedSlides, dict[str, str], dict[str, str]]:
    """Sites a and b; features show the site, labels follow it in nine of ten patients."""
    slides = _slides(seed)
    site = {patient: "ab"[number % 2] for number, patient in enumerate(slides.patients)}
    means = slides.means.copy()
    means[::2, :8] += strength
    labels = {patient: site[patient] if n % 10 else "b" for n, patient in enumerate(slides.patients)}
    return AuditedSlides(slides.slide_ids, slides.patients, slides.digests, means), site, labels


def test_a_site_that_shows_and_goes_with_the_label() -> None:
    slides, site, labels = _confounded(2.0)
    spec = parse_target("y")[0]
    texts = {spec: {patient: (label,) for patient, label in labels.items()}}
    told, tied = find_confounders(slides, Roles(_splits(slides)), {"site": site}, texts, 0)
    assert (told.kind, told.severity, told.members) == ("site-in-features", "warning", ("a", "b"))
    assert told.numbers["balanced_accuracy"] > 0.95 and told.numbers["chance"] == 0.5
    assert (tied.kind, tied.severity) == ("site-with-target", "warning")
    assert tied.numbers["p"] == 1 / 2000
    assert "--by-site preserved" in tied.meaning


def test_a_site_that_does_not_show_or_is_not_shared() -> None:
    slides, site, labels = _confounded(0.0)
    quiet, _ = find_confounders(slides, Roles(_splits(slides)), {"site": site}, {parse_target("y")[0]: _as(labels)}, 0)
    assert quiet.severity == "note" and quiet.numbers["low"] <= 0.5 <= quiet.numbers["high"]
    slides, site, labels = _confounded(2.0)
    apart = Splits.of(
        (0, patient, {"a": "test"}.get(site[patient], "val" if n < 9 else "train"))
        for n, patient in enumerate(slides.patients)
    )
    told, tied = find_confounders(slides, Roles(apart), {"site": site}, {parse_target("y")[0]: _as(labels)}, 0)
    assert (told.severity, tied.severity) == ("note", "note")
    assert told.meaning == "But no fold tests a value it trains on, so recognising it doesn't help."


def test_other_columns_and_other_kinds_of_targets() -> None:
    slides, scanner, _ = _confounded(2.0)
    roles = Roles(_splits(slides))
    value = {p: (str(n % 2 * 5 + n / 60),) for n, p in enumerate(slides.patients)}
    timed = {p: (str(1 + n % 2 * 5 + n / 60), "1") for n, p in enumerate(slides.patients)}
    texts: dict[TargetSpec, dict[str, tuple[str, ...]]] = {}
    texts[parse_target("age:regression")[0]] = {**value}
    texts[parse_target("t/e:cox")[0]] = {**timed}
    told, age, time = find_confounders(slides, roles, {"scanner": scanner}, texts, 0)
    assert told.kind == "scanner-in-features" and "--group scanner" in told.meaning
    assert age.severity == time.severity == "warning"
    assert age.numbers["value"] > 0.9 and time.numbers["p"] == 1 / 2000
    unknown = find_confounders(slides, roles, {"scanner": {}}, texts, 0)
    assert [one.what for one in unknown] == [
        "column `scanner` says nothing of these patients, so it was not looked for"
    ]


def _as(labels: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {patient: (label,) for patient, label in labels.items()}


def _audit() -> Audit:
    findings = [
        Finding("x", "note", "nothing", ""),
        Finding("near-duplicate", "leak", "2 pairs look alike", "Leave one out.", ("a = b", "c = d"), {"pairs": 2.0}),
        Finding("y", "warning", "odd", "Look."),
    ]
    return Audit(sorted_findings(findings), "resnet50", 10, 8, 5)


def test_audit_is_plain_data_and_text() -> None:
    audit = _audit()
    assert [one.severity for one in audit.findings] == ["leak", "warning", "note"]
    assert Audit.from_dict(json.loads(json.dumps(audit.to_dict()))) == audit
    assert audit.to_text() == (
        "10 slides of 8 patients, 5 folds, resnet50: 1 leak, 1 warning, 1 note\n\n"
        "LEAK     near-duplicate\n  2 pairs look alike: a = b; c = d\n  Leave one out.\n\n"
        "WARNING  y\n  odd\n  Look.\n\nNOTE     x\n  nothing\n"
    )
    for broken in ({}, {**audit.to_dict(), "slides": None}, {**audit.to_dict(), "findings": [{"kind": "x"}]}):
        with pytest.raises(StoreError, match="does not describe an audit"):
            Audit.from_dict(broken)


def test_a_leak_is_refused_unless_allowed() -> None:
    with pytest.raises(
        LeakError, match=r"2 pairs look alike .hint: Leave one out\. .*--allow-leaks near-duplicate"
    ) as caught:
        _audit().refuse_leaks([])
    assert caught.value.exit_code is ExitCode.REFUSED
    with pytest.raises(LeakError):
        _audit().refuse_leaks(["same-file"])
    _audit().refuse_leaks(["near-duplicate"])

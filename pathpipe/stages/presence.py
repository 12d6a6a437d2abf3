"""What of a run is there, made from what its settings ask for, and which command makes what isn't."""

from __future__ import annotations

from pathpipe.errors import PathpipeError
from pathpipe.provenance import read_provenance
from pathpipe.report.work import Absent
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import COHORT, SLIDE_STAGES, STAGES, train_name, units
from pathpipe.stages.endings import ending

COHORT_STAGES = {
    "split": ("folds", "pathpipe split RUN"),
    "audit": ("audit of the split", "pathpipe audit RUN"),
    "evaluate": ("evaluation", "pathpipe evaluate RUN"),
    "explanations": ("checks of the explanations", "pathpipe heatmap RUN"),
}


def absence(run: Run, stage: str, settings: RunSettings) -> Absent | None:
    """Why the artefact of a stage of the whole cohort can't be shown; None where it can."""
    name, command = COHORT_STAGES[stage]
    try:
        found = read_provenance(STAGES[stage].output(run, COHORT, settings))
        if found is None:
            check = STAGES[stage].preflight
            if check is not None:
                check(run, settings)  # what would refuse to make it says why
            return Absent(name, "it was not made", command)
        if settings.execution.stale == "keep":
            return None
        changes = found.differences(STAGES[stage].provenance(run, COHORT, settings))
    except PathpipeError as error:
        return Absent(name, error.reason, command)
    if not changes:
        return None
    more = f"; and {len(changes) - 2} more" if len(changes) > 2 else ""
    why = f"it was made from something else ({'; '.join(changes[:2])}{more})"
    return Absent(name, why, f"{command} --stale remake")


def absent_units(run: Run, settings: RunSettings) -> list[Absent]:
    """Slides without features or heatmaps that no failure explains, and folds that were not trained."""
    slides = [slide.slide_id for slide in run.cohort.slides]
    found = []
    encoder = settings.extract.encoder
    missing = [
        one for one in slides if not run.features(encoder, one).exists() and ending(run, one, SLIDE_STAGES)[0] == "done"
    ]
    if missing:
        why = f"{len(missing)} of {len(slides)} slides have none, and no failure says why"
        found.append(Absent(f"features of `{encoder}`", why, "pathpipe extract RUN"))
    name = train_name(settings)
    try:
        folds = units(run, "train", settings)
    except PathpipeError:
        return found
    untrained = [key for key in folds if not run.trained(name, key).exists()]
    if untrained:
        why = f"{len(untrained)} of {len(folds)} folds and seeds are not trained: {', '.join(untrained[:4])}"
        found.append(Absent(f"model `{name}`", why, "pathpipe train RUN"))
        return found
    undrawn = [one for one in units(run, "heatmap", settings) if not run.heatmap(name, one).exists()]
    if undrawn:
        found.append(Absent("heatmaps", f"{len(undrawn)} slides with features have none", "pathpipe heatmap RUN"))
    return found

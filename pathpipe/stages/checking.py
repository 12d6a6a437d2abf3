"""Checking an explanation: what the summary of a heatmap says of it, and of what was predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pathpipe.explain.aims import PREDICTED, Aim, aims_of, choose
from pathpipe.explain.faithfulness import artefact_shares, deletion_insertion
from pathpipe.explain.heatmap import Canvas
from pathpipe.explain.probing import Member
from pathpipe.explain.scores import Explanation, Scores
from pathpipe.explain.truth import INSIDE, instance_auroc, marked
from pathpipe.stages.stage import Job
from pathpipe.tissue.polygons import read_tissue


def check_aim(
    job: Job, members: Sequence[Member], explanation: Explanation, scores: Scores, canvas: Canvas
) -> dict[str, Any]:
    """How well the scores of one aim hold.

    Args:
        scores: Of the slide's own tiles.
        canvas: The slide and what is marked on it.

    Returns:
        `curves` of the patient's whole bag and `artefacts` of the slide, where checks are asked for; where something is
        marked on the slide, how well the scores find it.
    """
    settings = job.settings.heatmap
    truth, side0 = canvas.truth, canvas.side0
    share = marked(truth, scores.xy0, side0)
    found = instance_auroc(scores.score, share) if truth else math.nan
    said: dict[str, Any] = {
        "value": explanation.value(scores.aim),
        "tiles_in_truth": int((share >= INSIDE).sum()),
        "score_in_truth": float(scores.weights @ share) if truth else None,
        "area_in_truth": float(share.mean()) if truth else None,
        "instance_auroc": found if math.isfinite(found) else None,
        "curves": None,
        "artefacts": {},
    }
    if not settings.checks:
        return said
    whole = next(one for one in explanation.scores if one.aim == scores.aim)
    said["curves"] = deletion_insertion(members, own_aims(members, scores.aim), whole.score, settings.check_orders)
    tissue = job.run.tissue(job.key)
    if tissue.exists():
        said["artefacts"] = artefact_shares(read_tissue(tissue), scores.xy0, side0, scores.weights)
    return said


def own_aims(members: Sequence[Member], aim: Aim) -> list[Aim]:
    """An aim as each model has it: folds differ in mean, spread and bins."""
    at = aims_of(members[0].task).index(aim)
    return [aims_of(member.task)[at] for member in members]


def predicted_text(found: Explanation, numbers: bool = False) -> str:
    """What is predicted, in a few words.

    Args:
        numbers: With probabilities.
    """
    parts = []
    for aim in choose(found.aims, PREDICTED, found.values):
        value = found.value(aim)
        if aim.kind == "class":
            parts.append(f"{aim.label} ({value:.2f})" if numbers else aim.label)
        else:
            parts.append(f"{aim.label} {value:.4g}")
    return ", ".join(parts)

"""The chain: every stage by name, in order, and the units each one works on."""

from __future__ import annotations

from collections.abc import Sequence

from pathpipe.errors import PathpipeError
from pathpipe.publish import look_anew
from pathpipe.registry import Registry
from pathpipe.run import Run, safe_name
from pathpipe.settings import RunSettings

NEEDS: dict[str, tuple[str, ...]] = {
    "tissue": (),
    "tile": ("tissue",),
    "contact-sheet": ("tile",),
    "extract": ("tile",),
    "embed": ("extract",),
    "split": (),
    "audit": ("extract", "split"),
    "train": ("extract", "split", "audit"),
    "evaluate": ("train",),
    "heatmap": ("train",),
    "explanations": ("heatmap",),
    "report": ("evaluate", "explanations", "contact-sheet"),
}
# Loaded when first used: `pathpipe tile` must not wait for torch.
STAGES = Registry("stage", {name: f"pathpipe.stages.{name.replace('-', '_')}:STAGE" for name in NEEDS})
SLIDE_STAGES = ("tissue", "tile", "extract")
FROM_FEATURES = ("embed", "heatmap")  # one unit a slide that has features (and, to explain it, an unseen patient)
COHORT = "cohort"  # key of stages with one unit


def upstream(stage: str) -> list[str]:
    """`stage` and every stage it needs, in order."""
    needed = {stage}
    for name in reversed(NEEDS):
        if name in needed:
            needed.update(NEEDS[name])
    return [name for name in NEEDS if name in needed]


def train_name(settings: RunSettings) -> str:
    """Name of a trained model: as asked, or model-target-encoder."""
    parts = (settings.train.model, settings.split.target, "+".join(encoders_of(settings)))
    return settings.train.name or safe_name("-".join(parts))


def encoders_of(settings: RunSettings) -> list[str]:
    """Encoders whose features a model takes: the run's own, or several side by side."""
    return settings.train.encoders or [settings.extract.encoder]


def further_encoders(settings: RunSettings) -> list[str]:
    """Encoders that encode the run's tiles beside its own."""
    wanted = dict.fromkeys([*settings.execution.with_encoders, *settings.train.encoders])
    return [name for name in wanted if name != settings.extract.encoder]


def fold_key(fold: int, seed: int) -> str:
    """Key of one training unit."""
    return f"fold-{fold}-seed-{seed}"


def units(run: Run, stage: str, settings: RunSettings) -> list[str]:
    """Keys of a stage's units, in order."""
    slides = [slide.slide_id for slide in run.cohort.slides]
    if stage in SLIDE_STAGES:
        return slides
    if stage in FROM_FEATURES:
        look_anew(run.features_of(settings.extract.encoder))
        seen = always_seen(run, settings) if stage == "heatmap" else frozenset()
        # a slide without features has been reported where it failed
        found = [slide_id for slide_id in slides if run.features(settings.extract.encoder, slide_id).exists()]
        return [slide_id for slide_id in found if slide_id not in seen]
    if stage == "train":
        from pathpipe.stages.split import read_splits  # what a split is made of must not slow `pathpipe tile` down

        return [fold_key(fold, seed) for fold in read_splits(run, settings).folds for seed in settings.train.seeds]
    return [COHORT]


def always_seen(run: Run, settings: RunSettings) -> frozenset[str]:
    """Slides whose patients every fold trains or validates on, e.g. all but a fixed test set; none without a split."""
    from pathpipe.stages.split import read_splits  # as above

    try:
        patients = read_splits(run, settings).always_seen
    except PathpipeError:
        return frozenset()
    return frozenset(slide_id for slide_id, patient in run.cohort.patients.items() if patient in patients)


def for_encoder(settings: RunSettings, name: str) -> RunSettings:
    """The same settings with another encoder of the catalogue."""
    extract = settings.extract.model_copy(update={"encoder": name, "weights": None})
    train = settings.train.model_copy(update={"encoders": []})
    return settings.with_execution(with_encoders=[]).model_copy(update={"extract": extract, "train": train})


def passes(stages: Sequence[str], settings: RunSettings) -> list[RunSettings]:
    """Encoding goes over the slides once for each encoder; the first pass feeds the others with its tiles."""
    others = further_encoders(settings) if "extract" in stages else []
    return [settings, *(for_encoder(settings, name) for name in others)]

"""The YAML files that come with pathpipe: each asks for things that exist and fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pathpipe.encoders.catalogue import encoder_record
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.settings import RunSettings, merge, read_yaml
from pathpipe.settings.target import parse_target
from pathpipe.stages.patients import wrappers_of
from pathpipe.tissue.method import METHODS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_asks_for_what_there_is(path: Path) -> None:
    settings = merge(RunSettings, [(path.name, read_yaml(path))])[0]
    assert settings.cohort and settings.cohort.endswith(".csv")
    assert parse_target(settings.split.target)
    record = encoder_record(settings.extract.encoder)
    assert record.mpp in (None, settings.tile.mpp), "tiles at the encoder's own scale, where it has one"
    METHODS[settings.tissue.method].Options(**settings.tissue.method_settings)
    recipe = Recipe(settings.train.model, settings.train.model_settings, wrappers_of(settings.train))
    with torch.random.fork_rng(devices=[]):
        build_model(recipe, 8, 2)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) > 20, "it says what it is for"


def test_the_demo_is_what_the_demo_runs() -> None:
    ours, theirs = read_yaml(ROOT / "configs" / "demo.yaml"), read_yaml(ROOT / "pathpipe" / "samples" / "demo.yaml")
    assert {**ours, "cohort": None} == {**theirs, "cohort": None}
    assert Path(str(ours["cohort"])).name == theirs["cohort"]

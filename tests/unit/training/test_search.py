"""Proposals and the bar under which a candidate is given up, beside Optuna's own pruner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathpipe.execution.candidate import Candidate
from pathpipe.settings.sweep import SweepSettings
from pathpipe.training.search import Proposal, bars, import_optuna, open_study, propose, record


@pytest.mark.parametrize("maximise", [True, False])
def test_a_candidate_is_given_up_when_optunas_median_pruner_would(maximise: bool, tmp_path: Path) -> None:
    optuna = import_optuna()
    rng = np.random.default_rng(3)
    ours = open_study(tmp_path / "study.journal", "s", maximise)
    pruner = optuna.pruners.MedianPruner(5)
    given_up = 0
    for number in range(30):
        theirs = optuna.create_study(direction="maximize" if maximise else "minimize", pruner=pruner)
        theirs.add_trials(ours.trials)
        trial, reach = theirs.ask(), tuple(bars(ours.trials))
        assert len(reach) == (4 if number >= 5 else 0)
        reached: list[float] = []
        for step, value in enumerate(rng.normal(size=4)):
            reached.append(float(value))
            trial.report(value, step)
            candidate = Candidate(number, {}, reach, maximise)
            assert Candidate.of(candidate.key).is_below(reached) == trial.should_prune()
            given_up += trial.should_prune()
        record(ours, Proposal({}, {}, {}), "complete", reached)
    assert 10 < given_up < 90


def test_a_proposal_depends_on_what_is_known_and_its_number(tmp_path: Path) -> None:
    settings = SweepSettings(space={"lr": {"low": 1e-5, "high": 1e-1, "log": True}}, seed=4)
    study, base = open_study(tmp_path / "study.journal", "s", True), {"lr": 1.0, "epochs": 3}

    def next_one(known: Any, number: int) -> float:
        return float(propose(known, settings, base, number, True).values["lr"])

    for number in range(12):
        proposal = propose(study.trials, settings, base, number, True)
        assert proposal.values["epochs"] == 3 and proposal.params == {"lr": proposal.values["lr"]}
        record(study, proposal, "complete", [-abs(np.log10(proposal.values["lr"]) + 3)])
    known = study.trials
    assert next_one(known, 12) == next_one(open_study(tmp_path / "study.journal", "s", True).trials, 12)
    assert next_one(known, 12) != next_one(known, 13)
    assert next_one(known, 12) != next_one(known[:11], 12)
    failed = record(study, proposal, "fail", [], "it burst")
    assert (failed.state.name, failed.value, failed.user_attrs["reason"]) == ("FAIL", None, "it burst")

"""A training that is cut off at any step goes on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pathpipe.training.fit import Conditions, Fit
from pathpipe.training.sampling import Pass
from pathpipe.training.state import StateFile
from pathpipe.training.trainer import train_fold
from tests.unit.training.test_trainer import QUICK, TASK, _data, _state

HARD: Mapping[str, Any] = {
    "epochs": 4,
    "batch_size": 2,
    "accumulate": 2,
    "max_instances": 12,
    "instance_dropout": 0.2,
    "mixup": 0.5,
    "average": 0.9,
    "clip": 0.5,
}


class Cut(Exception):
    """What kills the training."""


def _cut_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Die in the forward pass after so many."""
    left, whole = [calls], Fit.add_gradient

    def add_gradient(self: Fit, one: Pass, batch: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Cut
        return whole(self, one, batch)

    monkeypatch.setattr(Fit, "add_gradient", add_gradient)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_cut_off_again_and_again(optimiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = QUICK.model_copy(update={**HARD, "optimiser": optimiser})
    expected = train_fold(_data(), TASK, settings, 7)
    file = tmp_path / "half.state"
    resumed_inside = 0
    for _ in range(30):
        keep = StateFile(file, "same", 0.0)
        with monkeypatch.context() as patch:
            _cut_after(patch, 3)  # 4 passes an epoch, 2 a step: mostly in the middle of an epoch
            try:
                found = train_fold(_data(), TASK, settings, 7, how=Conditions(keep=keep))
                break
            except Cut:
                saved = keep.read()
                assert saved is not None
                resumed_inside += saved["standing"]["step"] > 0
    else:
        raise AssertionError("it never came to an end")
    assert resumed_inside > 1
    assert found.history.equals(expected.history) and found.best_epoch == expected.best_epoch
    assert torch.equal(found.logits["test"], expected.logits["test"])
    assert all(torch.equal(value, _state(expected)[name]) for name, value in _state(found).items())


def test_a_state_of_something_else_is_ignored_and_so_is_a_damaged_one(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "s", "this", 0.0)
    assert file.read() is None
    file.save(lambda: {"x": torch.arange(3)})
    again = file.read()
    assert again is not None and again["x"].tolist() == [0, 1, 2]
    assert StateFile(tmp_path / "s", "that").read() is None
    content = bytearray(file.path.read_bytes())
    content[len(content) // 2] ^= 1
    file.path.write_bytes(content)
    assert file.read() is None
    file.forget()
    assert not file.path.exists()
    file.forget()


def test_saves_from_time_to_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pathpipe.training.state.time.monotonic", lambda: now[0])
    file, calls = StateFile(tmp_path / "s", "f", every_s=30), []
    for second in range(0, 100, 10):
        now[0] = 100.0 + second
        before = file.path.stat().st_mtime_ns if file.path.exists() else 0
        file.save(lambda: {"at": now[0]})
        if file.path.exists() and file.path.stat().st_mtime_ns != before:
            calls.append(now[0])
    assert calls == [130.0, 160.0, 190.0]

"""Checkpoints: everything comes back, equal ones are equal bytes, and no file can surprise."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bags
from pathpipe.mil.registry import MODELS, Recipe, build_model
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.testing.bags import random_bag
from pathpipe.training.checkpoint import Checkpoint, load_checkpoint

TASK = ClassificationTask("grade", ("low", "mid", "high"))
ENCODER = {"name": "uni", "revision": "1", "weights_sha256": "ab" * 32, "transform": "resize 224", "dim": 6}


def _checkpoint(name: str = "gated-abmil") -> Checkpoint:
    torch.manual_seed(0)
    model = build_model(Recipe(name, {"hidden": 16}), 6, 3)
    return Checkpoint(
        model=name,
        options=model.options.model_dump(mode="json"),
        wrappers={},
        dim_in=6,
        task=TASK.to_dict(),
        encoder=ENCODER,
        preprocessing={"tile": {"mpp": 0.5, "tile_px": 256}, "extract": {"weights": None}},
        feature_mean=torch.arange(6.0),
        feature_std=torch.ones(6),
        distances={"train": {"slides": 4, "quantiles": torch.linspace(0, 1, 101)}},
        fold=2,
        seed=7,
        best_epoch=3,
        state=model.state_dict(),
    )


@pytest.mark.parametrize("name", MODELS.names())
def test_round_trip(name: str, tmp_path: Path) -> None:
    before = _checkpoint(name)
    before.save(tmp_path / "model.pt")
    after = load_checkpoint(tmp_path / "model.pt")
    for field in fields(Checkpoint):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if field.name == "state":
            assert list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
        elif field.name == "distances":
            assert other["train"]["slides"] == 4
            assert torch.equal(one["train"]["quantiles"], other["train"]["quantiles"])
        elif isinstance(one, torch.Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other
    assert after.load_task() == TASK
    model = build_model(Recipe(name, {"hidden": 16}), 6, 3).eval()
    model.load_state_dict(dict(before.state))
    batch = Bags.pack([random_bag(5, 6)])
    rebuilt = after.build()
    assert not rebuilt.training
    assert torch.equal(rebuilt(batch).logits, model(batch).logits)


def test_options_are_written_out() -> None:
    assert _checkpoint().options == {"hidden": 16, "attention_dim": 128, "dropout": 0.25}


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    _checkpoint().save(tmp_path / "one.pt")
    _checkpoint().save(tmp_path / "other-name.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other-name.pt").read_bytes()
    replace(_checkpoint(), seed=8).save(tmp_path / "third.pt")
    assert (tmp_path / "third.pt").read_bytes() != (tmp_path / "one.pt").read_bytes()


def test_building_draws_no_randomness() -> None:
    checkpoint = _checkpoint()
    before = torch.get_rng_state()
    checkpoint.build()
    assert torch.equal(before, torch.get_rng_state())


def test_refuses_features_of_another_encoder() -> None:
    checkpoint = _checkpoint()
    checkpoint.refuse_other_encoder({**ENCODER})
    with pytest.raises(StoreError) as caught:
        checkpoint.refuse_other_encoder({**ENCODER, "weights_sha256": "cd" * 32}, where="S1.h5")
    assert "ab" * 32 in str(caught.value) and "cd" * 32 in str(caught.value)
    assert str(caught.value).startswith("S1.h5: the model was trained on features of name uni")


class _Exploit:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('code was run')",))


def _write_damaged(path: Path, kind: str) -> None:
    _checkpoint().save(path)
    whole = path.read_bytes()
    good = torch.load(path, weights_only=True)
    contents: dict[str, Callable[[], object]] = {
        "no code is run": lambda: torch.save({"format": "pathpipe-checkpoint", "code": _Exploit()}, path),
        "plain pickle": lambda: path.write_bytes(pickle.dumps(_Exploit())),
        "text": lambda: path.write_text("not a model"),
        "empty": lambda: path.write_bytes(b""),
        "truncated": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "foreign": lambda: torch.save({"state_dict": {}}, path),
        "foreign tensor": lambda: torch.save(torch.ones(3), path),
        "other version": lambda: torch.save({**good, "version": 99, "pathpipe_version": "9.9"}, path),
        "missing": lambda: torch.save({key: good[key] for key in good if key != "encoder"}, path),
        "unknown": lambda: torch.save({**good, "surplus": 1}, path),
        "gone": path.unlink,
    }
    contents[kind]()


def test_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"Is a directory|is not a checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no code is run", "holds code, which is never run"),
        ("plain pickle", "is not a checkpoint, or ends early"),
        ("text", "is not a checkpoint, or ends early"),
        ("empty", "is not a checkpoint, or ends early"),
        ("truncated", "is not a checkpoint, or ends early .*`pathpipe train RUN` trains what is missing or damaged"),
        ("foreign", "is not a pathpipe checkpoint"),
        ("foreign tensor", "is not a pathpipe checkpoint"),
        (
            "other version",
            r"of version 99, this pathpipe reads version 3 .*train it again.*the pathpipe that wrote it .9.9",
        ),
        ("missing", "damaged checkpoint: encoder missing or unknown"),
        ("unknown", "damaged checkpoint: surplus missing or unknown"),
        ("gone", "there is no such checkpoint"),
    ],
)
def test_refuses_files_that_are_no_checkpoint(kind: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    _write_damaged(path, kind)
    with pytest.raises(StoreError, match=message) as caught:
        load_checkpoint(path)
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    _checkpoint().save(path)
    whole, good = path.read_bytes(), load_checkpoint(path)
    first = whole.index(good.state["embed.0.weight"].numpy().tobytes())
    for place in [first, *range(50, len(whole), 400)]:
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        try:
            after = load_checkpoint(path)  # padding between the archive's members may change
        except StoreError:
            continue
        assert place != first
        assert after.options == good.options
        assert all(torch.equal(value, good.state[key]) for key, value in after.state.items())


def test_refuses_weights_that_do_not_fit() -> None:
    checkpoint = _checkpoint()
    state = {**checkpoint.state, "head.bias": torch.zeros(5)}
    with pytest.raises(StoreError, match="weights don't fit model `gated-abmil`"):
        replace(checkpoint, state=state).build()

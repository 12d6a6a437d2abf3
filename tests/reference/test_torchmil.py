"""The models that torchmil has too, with its weights copied over: the same answers to 1e-5.

torchmil (1.0) has one logit a model and pads its batches; pathpipe is given both layouts. Its feature extractor is set
to our embedding layer. Where its layers differ, ours are set so that they do nothing; each test says which.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pathpipe.mil.bag import Bags, Labels
from pathpipe.mil.model import MILModule
from pathpipe.mil.pooling import max_over_instances, mean_over_instances
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.testing.bags import random_bag

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its and its dependencies' own
    peer = pytest.importorskip("torchmil.models", reason="torchmil is not installed")
    peer_layers = pytest.importorskip("torchmil.nn")

# the peer's own warnings are theirs
pytestmark = pytest.mark.filterwarnings("ignore")

DIM, WIDTH = 24, 32
SIZES = (40, 1, 17, 33)
Pairs = Mapping[str, nn.Module]


def _bags(sizes: tuple[int, ...] = SIZES) -> list[Bags]:
    """The same bags, packed and padded."""
    bags = [random_bag(size, DIM, seed=2) for size in sizes]
    return [Bags.pack(bags), Bags.pad(bags)]


def _ours(name: str, options: Mapping[str, Any], outputs: int = 1) -> MILModule:
    return build_model(Recipe(name, options), DIM, outputs).eval()


def _embedding() -> nn.Sequential:
    return nn.Sequential(nn.Linear(DIM, WIDTH), nn.ReLU())


def _copy(model: MILModule, pairs: Pairs) -> None:
    """Give the named modules of ours the weights of theirs; a bias they don't have is 0."""
    for name, module in pairs.items():
        state = dict(module.state_dict())
        own = model.get_submodule(name).state_dict()
        missing = {key: torch.zeros_like(own[key]) for key in own.keys() - state.keys()}
        assert all(key.endswith("bias") for key in missing)
        model.get_submodule(name).load_state_dict(state | missing)


def _pool(prefix: str, pool: Any) -> dict[str, nn.Module]:
    """An AttentionPool of theirs: its last layer has no bias."""
    pairs = {f"{prefix}.content": pool.fc1.module, f"{prefix}.score": pool.fc2}
    return pairs | ({f"{prefix}.gate": pool.fc_gated.module} if pool.gated else {})


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_mean_and_max_pooling() -> None:
    packed, padded = _bags()
    for bags in (packed, padded):
        _close(mean_over_instances(bags.features, bags), peer_layers.MeanPool()(padded.features, padded.mask))
        _close(max_over_instances(bags.features, bags), peer_layers.MaxPool()(padded.features, padded.mask))


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
def test_abmil(gated: bool) -> None:
    torch.manual_seed(0)
    theirs = peer.ABMIL((DIM,), att_dim=16, gated=gated, feat_ext=_embedding()).eval()
    model = _ours("gated-abmil" if gated else "abmil", {"hidden": WIDTH, "attention_dim": 16})
    _copy(model, {"embed.0": theirs.feat_ext[0], **_pool("attend", theirs.pool), "head": theirs.classifier.module})
    packed, padded = _bags()
    logits, raw = theirs(padded.features, padded.mask, return_att=True)
    for bags in (packed, padded):
        output = model(bags)
        _close(output.logits[:, 0], logits)
        _close(torch.cat(bags.split(output.attention_raw))[:, 0], raw[padded.mask])


class _CrossEntropy(nn.Module):
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits, targets[:, 0].long())


@pytest.mark.parametrize("label", [0, 1])
def test_clam_sb(label: int) -> None:
    """Their one logit is our two with the first head row 0; their instance loss is a sum, ours the classes' mean.

    Of their instance losses, the SVM broadcasts its (n, 1) targets to all pairs of instances, the other stops at their
    shape: cross-entropy is put in its place. Which instances it gets, with which targets, is theirs.
    """
    torch.manual_seed(0)
    theirs = peer.CLAM_SB((DIM,), att_dim=16, gated=True, k_sample=8, feat_ext=_embedding())
    theirs.inst_loss_fn = _CrossEntropy()
    options = {"hidden": WIDTH, "attention_dim": 16, "dropout": 0, "instances": 8, "subtyping": True}
    model = _ours("clam-sb", options | {"instance_loss": "ce"}, outputs=2).train()
    pairs = {f"inspect.{number}": part.module for number, part in enumerate(theirs.inst_classifiers)}
    _copy(model, {"embed.0": theirs.feat_ext[0], **_pool("attend", theirs.pool), **pairs})
    with torch.no_grad():
        for mine, other in zip(model.get_submodule("head").parameters(), theirs.classifier.parameters(), strict=True):
            mine.copy_(torch.cat([torch.zeros_like(other), other]))
    for size in (16, 40):
        packed, padded = _bags((size,))
        _, losses = theirs.compute_loss(torch.tensor([label]), padded.features)
        logits = theirs(padded.features)
        for bags in (packed, padded):
            output = model(replace(bags, labels=Labels("classification", torch.tensor([label]))))
            _close(output.logits[:, 1] - output.logits[:, 0], logits)
            _close(2 * output.losses["instance"], losses["InstLoss"])
            ours = torch.autograd.grad(2 * output.losses["instance"], model.get_parameter("embed.0.weight"))
            given = torch.autograd.grad(losses["InstLoss"], theirs.feat_ext[0].weight, retain_graph=True)
            _close(ours[0], given[0])


@torch.no_grad()
@pytest.mark.parametrize("value_layer", [False, True])
def test_dsmil(value_layer: bool) -> None:
    """Their `forward` is the bag stream, their `predict` the mean of both."""
    torch.manual_seed(0)
    theirs = peer.DSMIL((DIM,), att_dim=16, nonlinear_q=True, nonlinear_v=value_layer, feat_ext=_embedding()).eval()
    packed, padded = _bags()
    logits, attention, instances = theirs(padded.features, padded.mask, return_att=True, return_inst_pred=True)
    for average in (False, True):
        options = {"hidden": WIDTH, "query_dim": 16, "value_layer": value_layer, "average": average}
        model = _ours("dsmil", options)
        values = {"value.1": theirs.v_nn[1]} if value_layer else {}
        _copy(model, {"embed.0": theirs.feat_ext[0], "query": theirs.q_nn, "head": theirs.inst_classifier, **values})
        _copy(model, {"bag_head": theirs.bag_classifier})
        for bags in (packed, padded):
            output = model(bags)
            _close(torch.cat(bags.split(output.attention)), attention[padded.mask])
            _close(torch.cat(bags.split(output.instance_logits))[:, 0], instances[padded.mask])
            if not average:
                _close(output.logits[:, 0], logits)
                continue
            # theirs takes the maximum over padding too: one bag at a time
            alone = [theirs.predict(one.features[None])[0] for one in packed.single()]
            _close(output.logits[:, 0], torch.stack(alone))


@torch.no_grad()
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("mode", "distil"), [("afs", "afs"), ("max", "maxs")])
def test_dtfd(mode: str, distil: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their attention is plain: our gate is 1. Their shuffle is made to deal instances out in turn, as ours does.

    Their `max` and `maxmin` keep all instances of a pseudo-bag (`[:chunk_size]`), so ours is asked for as many;
    `maxmin` has all of them twice there, for which there is no counterpart.
    """
    torch.manual_seed(0)
    theirs = peer.DTFDMIL((DIM,), att_dim=16, n_groups=groups, distill_mode=mode, feat_ext=_embedding()).eval()
    theirs.feat_ext[0].bias.zero_()  # ours has none
    options = {"hidden": WIDTH, "attention_dim": 16, "groups": groups, "distil": distil, "instances": 1000}
    model = _ours("dtfd", options)
    model.get_parameter("embed.0.weight").copy_(theirs.feat_ext[0].weight)
    _copy(model, _pool("tier1_attend", theirs.attention_pool) | _pool("attend", theirs.u_attention_pool))
    _copy(model, {"tier1_head": theirs.classifier.module, "head": theirs.u_classifier.module})
    for name in ("tier1_attend", "attend"):
        model.get_parameter(f"{name}.gate.weight").zero_()
        model.get_parameter(f"{name}.gate.bias").fill_(50.0)

    def dealt(index: np.ndarray) -> None:
        count = min(groups, len(index))
        index[:] = np.concatenate([index[first::count] for first in range(count)])

    monkeypatch.setattr(np.random, "shuffle", dealt)
    packed, padded = _bags()
    for bags in (packed, padded):
        output = model(bags)
        for one, logit in zip(packed.single(), output.logits, strict=True):
            features = one.features[None]
            expected, scores = theirs(features, torch.ones(features.shape[:2]).bool(), return_inst_cam=True)
            _close(logit, expected)
            bias = theirs.classifier.module.bias
            _close(model(one).instance_logits[:, 0], scores[0] + bias)


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 5, 37, 300])
def test_transmil(size: int) -> None:
    """Theirs has no output layer after the heads and no convolution of the values: ours are the identity and 0."""
    torch.manual_seed(0)
    theirs = peer.TransMIL((DIM,), att_dim=WIDTH, n_heads=4, n_landmarks=16, feat_ext=_embedding()).eval()
    model = _ours("transmil", {"hidden": WIDTH, "heads": 4, "landmarks": 16})
    first, second = theirs.layers
    pairs = {"embed.0": theirs.feat_ext[0], "norms.0": first.norm1, "norms.1": second.norm1, "norms.2": theirs.norm}
    pairs |= {"first.to_qkv": first.att_module.qkv_nn, "second.to_qkv": second.att_module.qkv_nn}
    position = theirs.pos_layer
    pairs |= {"position.seven": position.proj, "position.five": position.proj1, "position.three": position.proj2}
    _copy(model, pairs | {"head": theirs.classifier})
    model.get_parameter("token").copy_(theirs.cls_token[0])
    for layer in ("first", "second"):
        model.get_parameter(f"{layer}.to_out.weight").copy_(torch.eye(WIDTH))
        model.get_parameter(f"{layer}.to_out.bias").zero_()
        model.get_parameter(f"{layer}.residual.weight").zero_()
    packed, padded = _bags((size,))
    for bags in (packed, padded):
        _close(model(bags).logits[:, 0], theirs(packed.features[None]))
    tokens = torch.randn(2, 40, WIDTH)
    for one in tokens.split(1):  # theirs scales the pseudo-inverse by the whole batch
        attended, row = model.get_submodule("first")(one)
        expected, matrix = first.att_module(one, return_att=True)
        _close(attended, expected)
        _close(row, matrix[:, :, 0])

"""MHIM: what is hidden, who teaches, what is recycled."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bags
from pathpipe.mil.hiding import Hiding, kept_rows, voted
from pathpipe.mil.model import TrainContext
from pathpipe.mil.recycle import Recycle
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.mil.schedule import cosine
from pathpipe.mil.wrappers.mhim import Mhim, class_aware, follow
from pathpipe.testing.bags import random_bag
from pathpipe.testing.contract import CONTEXT, ModelContract

AT_ONCE = {"baseline_epochs": 0}


class TestMhimOnAbmil(ModelContract):
    model = "abmil"
    options = {"hidden": 128}
    wrappers = {"mhim": AT_ONCE}


class _Hidden(ModelContract):
    """Of a bag that one instance decides, hiding it leaves nothing to learn from; ABMIL above learns all the same."""

    test_overfits_needles_and_points_at_them = None  # type: ignore[assignment]


class TestMhim1OnGatedAbmil(_Hidden):
    model = "gated-abmil"
    options = {"hidden": 128}
    wrappers = {"mhim": {**AT_ONCE, "version": "v1", "low": 0.1, "high_schedule": "cosine"}}


class TestMhimOnDsmil(_Hidden):
    model = "dsmil"
    options = {"hidden": 128}
    wrappers = {"mhim": AT_ONCE}


class TestMhimOnTransmil(_Hidden):
    model = "transmil"
    options = {"hidden": 32, "heads": 4, "landmarks": 16}
    wrappers = {"mhim": AT_ONCE}


class TestAemOnMhim(ModelContract):
    model = "abmil"
    options = {"hidden": 128}
    wrappers = {"mhim": AT_ONCE, "aem": {"value": 0.01}}


def _mhim(base: str = "abmil", **options: Any) -> Mhim:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(Recipe(base, {"hidden": 16, "dropout": 0.0}, {"mhim": {**AT_ONCE, **options}}), 8, 2)
    assert isinstance(model, Mhim)
    model.setup(CONTEXT)
    return model.train()


def _batch(*sizes: int) -> Bags:
    return Bags.pack([random_bag(size, 8, seed=3) for size in sizes])


def test_the_teacher_is_an_exact_moving_average_and_learns_nothing_itself() -> None:
    teacher, student = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    for module, value in ((teacher, 1.0), (student, 0.0)):
        torch.nn.init.constant_(module.weight, value)
    follow(teacher, student, 0.9997)
    assert teacher.weight.item() == pytest.approx(0.9997, abs=1e-7)
    for _ in range(2):
        follow(teacher, student, 0.9997)
    assert teacher.weight.item() == pytest.approx(0.9997**3, abs=1e-7)

    model = _mhim()
    model(_batch(9, 5)).total_loss(lambda logits, bag, share: logits.square().sum()).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    before = [p.clone() for p in model.teacher.parameters()]
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    model.post_step(_batch(9), CONTEXT)
    for old, new in zip(before, model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.0003, rtol=0, atol=1e-6)


def test_schedules() -> None:
    expected = [0.03, 0.029266, 0.027135, 0.023817, 0.019635, 0.015, 0.010365, 0.006183, 0.002865, 0.000734]
    assert [cosine(0.03, 0.0, at, 10) for at in range(10)] == pytest.approx(expected, abs=1e-6)
    expected = [0.9997, 0.999744, 0.99985, 0.999956]
    assert [cosine(0.9997, 1.0, at, 4) for at in range(4)] == pytest.approx(expected, abs=1e-6)
    model = _mhim(high=0.4, high_schedule="cosine")
    seen = []
    for step in range(10):
        model.pre_step(_batch(3), replace(CONTEXT, step=step, total_steps=10))
        seen.append(model.high)
    assert seen[0] == 0.4 and all(later < earlier for earlier, later in pairwise(seen))


def test_the_highest_are_hidden() -> None:
    scores = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2, 0.0, 0.7, 0.5, 0.4, 0.6])[:, None]
    assert kept_rows(scores, Hiding(high=0.25)).tolist() == [0, 2, 4, 5, 7, 8, 9]  # ceil(2.5) = 3: 1, 3 and 6
    assert kept_rows(scores, Hiding(high=0.0, low=0.2)).tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    both = kept_rows(scores, Hiding(high=0.2, low=0.2)).tolist()
    assert both == [2, 4, 6, 7, 8, 9]
    assert kept_rows(scores, Hiding(high=0.0)).tolist() == list(range(10))


def test_the_hidden_are_drawn_from_a_wider_pool() -> None:
    scores = torch.arange(100.0)[:, None]
    torch.manual_seed(0)
    hidden = torch.zeros(100)
    for _ in range(400):
        kept = kept_rows(scores, Hiding(high=0.1, pool=0.5))
        assert len(kept) == 90
        hidden += 1
        hidden[kept] -= 1
    assert not hidden[:80].any()  # 20 candidates, half of which are hidden
    assert ((hidden[80:] / 400 - 0.5).abs() < 0.12).all()


def test_random_hiding_has_its_rate() -> None:
    torch.manual_seed(0)
    hidden = torch.zeros(50)
    for _ in range(500):
        kept = kept_rows(torch.zeros(50, 1), Hiding(high=0.0, random=0.3))
        assert len(kept) == 35 and kept.tolist() == sorted(kept.tolist())
        hidden += 1
        hidden[kept] -= 1
    assert (hidden / 500).mean().item() == pytest.approx(0.3) and ((hidden / 500 - 0.3).abs() < 0.1).all()


def test_something_is_always_left() -> None:
    assert kept_rows(torch.tensor([[0.2], [0.8]]), Hiding(high=0.9, random=0.9)).tolist() == [1]
    assert kept_rows(torch.tensor([[0.2]]), Hiding(high=0.01)).tolist() == [0]


def test_heads_vote() -> None:
    heads = torch.tensor([[0.4, 0.1], [0.3, 0.5], [0.2, 0.2], [0.1, 0.15], [0.0, 0.05]])
    first = voted(heads, 2)
    assert first[0] == 1 and first[1] in (0, 2)  # 1 has two votes, 0 and 2 one each; the mean decides
    assert first.tolist() == [1, 0]


def test_class_aware_scores() -> None:
    """Numbers of a gated attention on four instances, computed apart."""
    hidden = torch.tensor([math.sin(i) for i in range(1, 13)]).view(4, 3)
    attention = torch.tensor([0.393565, 0.106907, 0.390747, 0.108781])
    weight = torch.tensor([[1.0, 0.0, -1.0], [-0.5, 0.5, 1.0]])
    scores = class_aware(attention, hidden, weight)[:, 0]
    expected = torch.tensor([0.551503, 0.50259, 0.532526, 0.520578], dtype=torch.float64)
    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-6)
    assert ((scores >= 0.5) & (scores <= 1)).all()
    alone = class_aware(attention, hidden, weight[:1])[:, 0]  # one logit against 0, as a second class of no weight
    torch.testing.assert_close(alone, class_aware(attention, hidden, torch.stack([weight[0], 0 * weight[0]]))[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instances_of_a_long_bag_keep_scores_of_their_own(dtype: torch.dtype) -> None:
    """Each has about 1 / 20,000 of the logits: a probability a little beside one half."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(20_000, 16, generator=random).to(dtype)
    attention = torch.rand(20_000, generator=random).softmax(0).to(dtype)
    weight = torch.randn(2, 16, generator=random)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        scores = class_aware(attention, hidden, weight)
    assert len(scores.unique()) > 19_900


def test_branches_are_no_classes() -> None:
    """The maps of ACMIL are five for two classes: its instances are scored by the mean map."""
    model, bags = _mhim("acmil"), _batch(20)
    model.eval()
    hidden = model.teacher.encode(bags)
    output = model.teacher.aggregate(hidden)
    assert output.attention is not None
    expected = class_aware(output.attention.mean(1), hidden.features, model.teacher.head.weight)
    assert torch.equal(model._score(output, hidden), expected)


def test_the_class_bias_has_no_part_in_scores() -> None:
    model, bags = _mhim(), _batch(20)
    hidden = model.teacher.encode(bags)
    before = model._score(model.teacher.aggregate(hidden), hidden)
    with torch.no_grad():
        model.teacher.head.bias.add_(3.0)
    assert torch.equal(model._score(model.teacher.aggregate(hidden), hidden), before)


def _reference_attention(net: Recycle, instances: Tensor) -> Tensor:
    """The same by hand, head by head."""
    queries = net.to_query(net.norm(net.queries))
    keys, values = net.to_key_value(net.norm(instances)).split(512, dim=-1)
    heads = []
    for head in range(8):
        part = slice(64 * head, 64 * head + 64)
        weights = (queries[:, part] @ keys[:, part].T / 8.0).softmax(-1)
        heads.append(weights @ values[:, part])
    return net.out(torch.cat(heads, dim=-1))


def test_the_recycle_network() -> None:
    torch.manual_seed(0)
    net = Recycle(512, 10, 0.9999).eval()
    size = sum(p.numel() for p in net.parameters()) + net.queries.numel()
    assert size == 1_646_722 - (591_619 - 129)  # of the published model, less its ABMIL without attention biases
    bound = math.sqrt(6 / (768 + 512))
    assert bound * 0.9 < net.queries.abs().max() <= bound
    instances = torch.randn(23, 512)
    torch.testing.assert_close(net(instances), _reference_attention(net, instances), rtol=1e-4, atol=1e-5)
    start, made = net.queries.clone(), net(instances)
    net.follow(made)
    torch.testing.assert_close(net.queries, 0.9999 * start + 0.0001 * made)


def test_what_the_student_sees() -> None:
    model, bags = _mhim(high=0.0, keep_ratio=0.8, recycle=3), _batch(20, 7)
    assert model.recycle is not None
    queries = model.recycle.queries.clone()
    output = model(bags)
    assert output.seen is not None and output.seen.lengths == (16 + 3, 5 + 3)
    assert output.attention is not None and len(output.attention) == 27
    assert torch.equal(model.recycle.queries, queries)  # they move after the step, and only in training
    model.post_step(bags, CONTEXT)
    assert not torch.equal(model.recycle.queries, queries)
    model.eval()(bags)
    queries = model.recycle.queries.clone()
    model.post_step(bags, CONTEXT)
    assert torch.equal(model.recycle.queries, queries)


def test_queries_follow_the_tokens_of_all_passes_of_a_step() -> None:
    model, made = _mhim(recycle=3, recycle_momentum=0.5), []
    assert model.recycle is not None
    model.recycle.register_forward_hook(lambda module, given, tokens: made.append(tokens.detach()))
    queries = model.recycle.queries.clone()
    for bags in (_batch(20, 17), _batch(30)):
        model(bags)
    assert len(made) == 3
    model.post_step(_batch(30), CONTEXT)
    torch.testing.assert_close(model.recycle.queries, 0.5 * queries + 0.5 * torch.stack(made).mean(0))


def test_nothing_hidden_nor_recycled_is_the_plain_model() -> None:
    model, bags = _mhim(high=0.0, recycle=0, consistency=0.0), _batch(20, 7)
    torch.testing.assert_close(model(bags).logits, model.student(bags).logits)
    assert model.deployed() is model.student
    model.eval()
    assert torch.equal(model(bags).logits, model.student(bags).logits)


def test_consistency_is_least_where_the_student_agrees() -> None:
    model = _mhim()
    teacher = torch.randn(2, 16) * 0.2
    agrees = teacher / model.options.temperature
    least = model._consistency(agrees, teacher, 16)
    share = agrees.softmax(-1)
    torch.testing.assert_close(least, -(share * share.log()).sum(-1).mean())
    for _ in range(20):
        assert model._consistency(agrees + torch.randn(2, 16), teacher, 16) > least
    torch.testing.assert_close(model._consistency(agrees + 5.0, teacher, 16), least)  # a softmax feels no shift


def test_plain_epochs_come_first() -> None:
    model, bags = _mhim(baseline_epochs=2), _batch(20, 7)
    for epoch in range(2):
        model.on_epoch(TrainContext(epoch, 4, 0, 8, torch.Generator()))
        assert model(bags).losses == {} and model(bags).seen is None
    with torch.no_grad():
        model.student.head.weight.add_(1.0)
    model.on_epoch(TrainContext(2, 4, 4, 8, torch.Generator()))
    assert torch.equal(model.teacher.head.weight, model.student.head.weight)
    assert set(model(bags).losses) == {"consistency"}


def test_versions_and_refusals() -> None:
    first, second = _mhim(version="v1").options, _mhim().options
    assert (first.scores, first.random, first.recycle, first.consistency) == ("attention", 0.5, 0, 0.1)
    assert (second.scores, second.random, second.recycle, second.consistency) == ("class-aware", 0.0, 10, 0.5)
    assert _mhim(version="v1", random=0.7).options.random == 0.7
    with pytest.raises(SettingsError, match="can't be more"):
        _mhim(high=0.5, pool=0.2)
    with pytest.raises(SettingsError, match="can't work on `mean`"):
        _mhim("mean")
    with pytest.raises(SettingsError, match=r"can't recycle instances of `2dmamba`.*mhim.recycle=0"):
        _mhim("2dmamba")
    _mhim("2dmamba", recycle=0)(_batch(20))
    plain = _mhim("s4mil", baseline_epochs=2)
    with pytest.raises(SettingsError, match="needs a model that scores instances"):
        plain(_batch(20))  # in the first of the plain epochs

"""MambaMIL: its blocks, orders and what its options do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import pad, silu, softplus

from pathpipe.mil.bag import Bags
from pathpipe.mil.mamba import MambaBlock, SelectivePath, backward_order, causal_conv, strided_order
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.mil.scan import ScanInputs, sequential_scan
from pathpipe.testing.bags import random_bag

HOST = torch.device("cpu")


def test_parameter_counts() -> None:
    count = {
        kind: sum(p.numel() for p in MambaBlock(512, kind).parameters()) for kind in ("mamba", "bimamba", "srmamba")
    }
    assert count == {"mamba": 1_694_720, "bimamba": 1_816_576, "srmamba": 1_816_576}
    assert sum(p.numel() for p in build_model(Recipe("mambamil"), 1024, 2).parameters()) == 4_227_843


@pytest.mark.parametrize(
    ("count", "rate", "sources"),
    [(7, 3, [0, 3, 6, 1, 4, -1, 2, 5, -1]), (10, 5, [0, 5, 1, 6, 2, 7, 3, 8, 4, 9])],
)
def test_strided_order(count: int, rate: int, sources: list[int]) -> None:
    order = strided_order([count], rate, HOST)
    assert (order.apply(torch.arange(1, count + 1)) - 1).tolist() == sources


def test_orders_are_undone_for_any_lengths() -> None:
    for count in range(1, 51):
        for rate in range(1, 13):
            lengths = [count, 3, 1]
            values = torch.arange(1, count + 5)
            for order in (strided_order(lengths, rate, HOST), backward_order(lengths, HOST)):
                assert torch.equal(order.undo(order.apply(values)), values)
                assert int((order.apply(values) > 0).sum()) == len(values)


def test_rate_of_one_is_no_reordering_and_backward_turns_each_bag() -> None:
    values = torch.arange(5)
    assert torch.equal(strided_order([3, 2], 1, HOST).apply(values), values)
    assert backward_order([3, 2], HOST).apply(values).tolist() == [2, 1, 0, 4, 3]


def test_convolution_sees_only_what_came_before_in_its_bag() -> None:
    torch.manual_seed(0)
    conv = nn.Conv1d(6, 6, 4, groups=6)
    bags = [torch.randn(n, 6) for n in (7, 1, 2, 30)]
    expected = [conv(pad(bag.T[None], (3, 0)))[0].T for bag in bags]
    torch.testing.assert_close(causal_conv(torch.cat(bags), conv, [7, 1, 2, 30]), torch.cat(expected))
    same = nn.Conv1d(6, 6, 4, groups=6, padding=3)
    same.load_state_dict(conv.state_dict())
    torch.testing.assert_close(expected[0], same(bags[0].T[None])[0, :, :7].T)


@pytest.mark.parametrize("kind", ["mamba", "bimamba", "srmamba"])
def test_block_is_its_paths_written_out(kind: str) -> None:
    torch.manual_seed(0)
    block, tokens, rate = MambaBlock(16, kind, 4, 3), torch.randn(10, 16), 3  # type: ignore[arg-type]
    both = block.project_in(tokens)
    mixed = plainly(block.paths[0], both)
    if kind == "bimamba":
        mixed = mixed + plainly(block.paths[1], both.flip(0)).flip(0)
    if kind == "srmamba":
        rows = pad(both, (0, 0, 0, 2)).view(4, rate, -1).transpose(0, 1).reshape(12, -1)
        mixed = mixed + plainly(block.paths[1], rows).view(rate, 4, -1).transpose(0, 1).reshape(12, -1)[:10]
    torch.testing.assert_close(block(tokens, [10]), block.project_out(mixed), rtol=1e-5, atol=1e-6)


def plainly(path: nn.Module, both: torch.Tensor) -> torch.Tensor:
    """One path of one bag, straight from the paper's figure."""
    assert isinstance(path, SelectivePath)
    inputs, gate = both.chunk(2, -1)
    u = silu(path.conv(pad(inputs.T[None], (3, 0)))[0].T)
    step, b, c = path.select(u).split([path.rank, path.state, path.state], -1)
    scanned = ScanInputs(u, softplus(path.step(step)), -path.log_decay.exp(), b, c, path.skip)
    return sequential_scan(scanned, [len(both)])[0] * silu(gate)


def test_mamba_is_causal_and_the_other_kinds_are_not() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(40, 16)
    moved = tokens.index_fill(0, torch.tensor([21]), 5.0)
    for kind, causal in (("mamba", True), ("bimamba", False), ("srmamba", False)):
        block = MambaBlock(16, kind, 4, 3)  # type: ignore[arg-type]
        before, after = block(tokens, [40]), block(moved, [40])
        assert torch.equal(before[:21], after[:21]) == causal
        assert not torch.equal(before[21:], after[21:])


def test_long_bags_are_computed_again_to_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = []
    for kept in (2**22, 1):
        monkeypatch.setattr("pathpipe.mil.mamba._KEPT", kept)
        torch.manual_seed(0)
        block = MambaBlock(16, "srmamba", 4, 3)
        block(torch.randn(50, 16), [30, 20]).square().sum().backward()
        grads.append([parameter.grad for parameter in block.parameters()])
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_first_step_sizes() -> None:
    """Mamba's are log-uniform in [0.001, 0.1]; the published MambaMIL's come from a zero bias."""
    torch.manual_seed(0)
    paths = [m for m in build_model(Recipe("mambamil"), 8, 2).modules() if isinstance(m, SelectivePath)]
    steps = softplus(torch.stack([path.step.bias for path in paths]))
    assert 1e-3 <= steps.min() < 1.1e-3
    assert 0.09 < steps.max() <= 0.1
    assert steps.log().mean().exp().item() == pytest.approx(1e-2, rel=0.05)
    quirk = build_model(Recipe("mambamil", {"zero_dt_bias": True}), 8, 2)
    for path in quirk.modules():
        if isinstance(path, SelectivePath):
            assert not path.step.bias.any()
            assert path.step.weight.std().item() == pytest.approx((2 / (32 + 1024)) ** 0.5, rel=0.05)


def test_options_move_the_model() -> None:
    options = {"hidden": 16, "state": 3, "layers": 3, "attention_dim": 5, "dropout": 0.5, "type": "mamba"}
    model = build_model(Recipe("mambamil", options), 6, 2)
    assert model.get_parameter("blocks.2.paths.0.log_decay").shape == (32, 3)
    assert model.get_parameter("attend.score.weight").shape == (1, 5)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5]
    torch.manual_seed(0)
    batch = Bags.pack([random_bag(20, 6)])
    logits = []
    for rate in (2, 5):
        torch.manual_seed(0)
        logits.append(build_model(Recipe("mambamil", {"hidden": 16, "rate": rate}), 6, 2).eval()(batch).logits)
    assert not torch.allclose(*logits)

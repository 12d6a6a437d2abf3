"""2DMamba: the scan over a plane, the plane under a bag's tiles, and pooling with and without empty cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.mil import scan2d
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.mil.scan import ScanInputs
from pathpipe.mil.scan2d import plane_of, plane_recurrence, plane_scan, tile_step
from pathpipe.testing.bags import random_bag


def test_published_numbers() -> None:
    """3 x 3 ones with decay 0.5: rows first, then columns; adding the left and upper states would end in 4.125."""
    ones = torch.ones(3, 3)
    expected = torch.tensor([[1, 1.5, 1.75], [1.5, 2.25, 2.625], [1.75, 2.625, 3.0625]])
    assert torch.equal(plane_recurrence(ones / 2, ones, torch.zeros(3)), expected)


def plane_inputs(height: int, width: int, dtype: torch.dtype = torch.float64) -> ScanInputs:
    random = torch.Generator().manual_seed(0)
    cells, channels, states = height * width, 3, 2

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=dtype)

    return ScanInputs(
        normal(cells, channels),
        normal(cells, channels).abs(),
        -normal(channels, states).abs(),
        normal(cells, states),
        normal(cells, states),
        normal(channels),
    )


def slow_plane_scan(given: ScanInputs, width: int) -> Tensor:
    """Cell by cell: every cell above and left, through the decays along the row, then down the column."""
    u, dt, a, b, c, d = given
    height = len(u) // width
    decay = (dt[:, :, None] * a).exp().view(height, width, *a.shape)
    along = ((dt * u)[:, :, None] * b[:, None, :]).view(height, width, *a.shape)
    states = torch.zeros_like(along)
    for row in range(height):
        for column in range(width):
            for left in range(column + 1):
                through = decay[row, left + 1 : column + 1].prod(0)
                states[row, column] += through * along[row, left]
    planes = torch.zeros_like(states)
    for column in range(width):
        for row in range(height):
            for above in range(row + 1):
                planes[row, column] += decay[above + 1 : row + 1, column].prod(0) * states[above, column]
    return (planes.flatten(0, 1) * c[:, None, :]).sum(-1) + d * u


@pytest.mark.parametrize("band", [1, 2**22])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1), (4, 5)])
def test_scan_is_its_definition_whatever_the_bands(
    height: int, width: int, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan2d, "_BAND", band)
    given = plane_inputs(height, width)
    torch.testing.assert_close(plane_scan(given, width), slow_plane_scan(given, width))


@pytest.mark.parametrize("band", [1, 2**22])
def test_gradient_is_the_finite_difference(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan2d, "_BAND", band)
    given = tuple(values.requires_grad_() for values in plane_inputs(3, 4))
    assert torch.autograd.gradcheck(lambda *all: plane_scan(ScanInputs(*all), 4), given)


@pytest.mark.parametrize("kept", [1.0, 0.3])
def test_step_is_that_of_the_grid_even_if_most_tiles_are_gone(kept: float) -> None:
    corners = np.stack(np.divmod(np.arange(900), 30), 1) * 512 + [1000, 77]
    rows = np.random.default_rng(0).permutation(900)[: int(900 * kept)]
    xy0 = torch.from_numpy(corners[rows])
    assert tile_step(xy0) == 512
    plane = plane_of(xy0)
    assert (plane.height, plane.width) == (30, 30)
    assert plane.counts.max() == 1
    expected = (xy0[:, 1] - 77) // 512 * 30 + (xy0[:, 0] - 1000) // 512
    assert torch.equal(plane.cell, expected)


def test_step_without_rows_or_grid() -> None:
    assert tile_step(torch.tensor([[5, 5]])) == 1
    assert tile_step(torch.tensor([[0, 0], [300, 400]])) == 300
    scattered = torch.from_numpy(np.random.default_rng(0).integers(0, 10**6, (50, 2)))
    plane = plane_of(scattered)
    assert plane.height * plane.width <= 64 * 50
    assert len(plane.cell.unique()) > 40


def test_tiles_of_a_cell_are_averaged_and_empty_cells_hold_the_token() -> None:
    plane = plane_of(torch.tensor([[0, 0], [20, 0], [0, 0], [20, 10], [10, 0]]))
    values = torch.tensor([[1.0], [2.0], [5.0], [7.0], [4.0]])
    assert plane.spread(values, torch.tensor([-1.0])).flatten().tolist() == [3, 4, 2, -1, -1, 7]


def test_a_full_grid_has_no_empty_cells_to_attend() -> None:
    tiles, cells = model_of("tiles"), model_of("cells")
    cells.load_state_dict(tiles.state_dict())
    full, holed = Bags.pack([random_bag(16, 6)]), Bags.pack([without(random_bag(16, 6), 5)])
    assert torch.equal(tiles(full).logits, cells(full).logits)
    assert not torch.allclose(tiles(holed).logits, cells(holed).logits)


def test_tiles_of_a_cell_share_its_attention() -> None:
    bag = random_bag(9, 6)
    assert bag.xy0 is not None
    twice = bag.take(np.array([0, 1, 2, 3, 4, 4, 5, 6, 7, 8]))
    model = model_of("tiles")
    one, two = model(Bags.pack([bag])), model(Bags.pack([twice]))
    torch.testing.assert_close(two.logits, one.logits)
    torch.testing.assert_close(two.attention[4] + two.attention[5], one.attention[4])


def test_places_matter_and_their_origin_does_not() -> None:
    model, batch = model_of("tiles"), Bags.pack([random_bag(16, 6)])
    assert batch.xy0 is not None
    plain = model(batch).logits
    assert torch.equal(model(replace(batch, xy0=batch.xy0 + 12_345)).logits, plain)
    assert not torch.allclose(model(replace(batch, xy0=batch.xy0.flip(1))).logits, plain)


def test_refuses_bags_without_places() -> None:
    with pytest.raises(StoreError, match="coordinates"):
        model_of("tiles")(Bags.pack([Bag(np.zeros((3, 6), np.float32))]))


def model_of(attend: str) -> MILModule:
    torch.manual_seed(0)
    return build_model(Recipe("2dmamba", {"hidden": 16, "state": 4, "attend": attend}), 6, 2).eval()


def without(bag: Bag, row: int) -> Bag:
    return bag.take(np.delete(np.arange(len(bag)), row))


def test_parameter_count() -> None:
    """1024 -> 128; one block of width 256, state 16, rank 8; norms, token, attention 128 and head."""
    block = 128 * 512 + 256 * 4 + 256 + 256 * (8 + 32) + 8 * 256 + 256 + 256 * 16 + 256 + 256 * 128
    rest = 1024 * 128 + 128 + 128 + 128 + 256 + 128 * 128 + 128 + 128 + 1 + 128 * 2 + 2
    assert sum(p.numel() for p in build_model(Recipe("2dmamba"), 1024, 2).parameters()) == block + rest

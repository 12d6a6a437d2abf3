"""The documentation says what the code does: generated pages are current, commands described, links alive."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def _reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "settings.md", "encoders.md"])
def test_generated_pages_are_current(page: str) -> None:
    assert (DOCS / page).read_text() == _reference().PAGES[page](), "run `make docs`"


def test_every_command_and_option_is_described() -> None:
    text = (DOCS / "cli.md").read_text()
    commands = re.findall(r"^## pathpipe (.+)$", text, re.MULTILINE)
    assert {"demo", "tile", "extract", "split", "train", "evaluate", "heatmap", "report", "run", "predict"} <= set(
        commands
    )
    assert "store inspect" in commands
    for line in text.splitlines():
        if line.startswith("| `--"):
            assert line.split("|")[2].strip(), f"no words for {line}"


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_commands_in_the_guides_exist() -> None:
    known = set(re.findall(r"^## pathpipe (\w+)", (DOCS / "cli.md").read_text(), re.MULTILINE))
    for page in (
        ROOT / "README.md",
        DOCS / "quickstart.md",
        DOCS / "resuming.md",
        DOCS / "formats.md",
        DOCS / "encoders.md",
    ):
        for command in re.findall(r"^pathpipe (\w+)|`pathpipe (\w+)", page.read_text(), re.MULTILINE):
            name = command[0] or command[1]
            assert name in known, f"{page.name}: pathpipe {name}"


def test_every_setting_is_an_option_of_some_command() -> None:
    from pathpipe.cli.options import _flag
    from pathpipe.settings import RunSettings

    text = (DOCS / "cli.md").read_text()
    for section, field in RunSettings.model_fields.items():
        for name in getattr(field.annotation, "model_fields", {}):
            bare, full = (f"--{one.replace('_', '-')}`" for one in (name, f"{section}_{name}"))
            assert any(flag in text for flag in (bare, full, f"{_flag(section, name)}`")), f"{section}.{name}"


def test_the_plugin_page_works() -> None:
    """Its model is taken from the page and meets the contract's core: packed equals padded."""
    import numpy as np
    import torch

    from pathpipe.encoders.slide.slide_encoder import SlideTiles
    from pathpipe.mil.bag import Bags
    from pathpipe.testing.bags import random_bag

    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "plugins.md").read_text(), re.DOTALL)
    space: dict[str, Any] = {}
    exec(blocks[0], space)
    model = space["MeanMax"](6, 2, space["MeanMax"].Options(hidden=4)).eval()
    bags = [random_bag(n, 6, n) for n in (3, 5)]
    packed, padded = model(Bags.pack(bags)).logits, model(Bags.pad(bags)).logits
    assert torch.allclose(packed, padded, atol=1e-6) and packed.shape == (2, 2)
    exec(blocks[2], space)
    assert space["MY_VIT"].dim == 768
    exec(blocks[3], space)
    tiles = SlideTiles(
        np.array([[1, 2], [3, 9], [8, 4]], np.float16), np.zeros((3, 2), np.int64), (1, 1), (1, 1), "vit", 1.0
    )
    assert space["Median"]("cpu").embed(tiles).tolist() == [3, 4]

"""Weights: reading the tensors of a file and loading them strictly; what is wrong where they don't fit."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pathpipe.errors import StoreError

# Where training codes put the network inside a checkpoint, and the prefixes they leave on its keys.
_CONTAINERS = ("state_dict", "model", "teacher", "model_state_dict")
_PREFIXES = ("module.", "backbone.", "_orig_mod.", "encoder.", "teacher.")
_HEADS = ("head.", "fc.", "classifier.", "norm_head.", "dino_head.", "ibot_head.")


def read_state(path: Path, own: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint: .safetensors, or a torch file read without running any code in it.

    Containers (`state_dict`, `model`, `teacher`) are opened and prefixes that wrappers leave on keys removed.

    Args:
        own: Prefixes that belong to the layout and stay, e.g. `encoder.` of Hugging Face's classes.

    Raises:
        StoreError: It is damaged, or holds something else than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _clean(load_file(path), own)
        except (SafetensorError, OSError) as error:
            raise StoreError(f"can't be read as safetensors: {error}", where=str(path)) from None
    try:
        # training codes keep their command line beside the tensors: a Namespace is data, and no code of it runs
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise StoreError(
            f"can't be read as weights: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=str(path),
            hint="give a .safetensors file, or a .pth/.pt/.bin that holds only tensors (nothing in it is ever run)",
        ) from None
    while isinstance(content, dict) and not _is_state(content):
        inner = next((content[name] for name in _CONTAINERS if isinstance(content.get(name), dict)), None)
        if inner is None:
            raise StoreError(f"holds no tensors (keys: {', '.join(map(str, list(content)[:5]))})", where=str(path))
        content = inner
    if not isinstance(content, dict):
        raise StoreError(f"holds a {type(content).__name__}, not weights", where=str(path))
    return _clean({name: value for name, value in content.items() if isinstance(value, torch.Tensor)}, own)


def _is_state(content: Mapping[str, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in content.values())


def _clean(state: Mapping[str, torch.Tensor], own: tuple[str, ...]) -> dict[str, torch.Tensor]:
    cleaned = dict(state)
    prefixes = [prefix for prefix in _PREFIXES if prefix not in own]
    while prefix := next((p for p in prefixes if sum(key.startswith(p) for key in cleaned) > len(cleaned) / 2), None):
        # keys beside the prefixed network (projection heads of self-supervised training) are dropped with it
        cleaned = {key.removeprefix(prefix): value for key, value in cleaned.items() if key.startswith(prefix)}
    return cleaned


# How a family stretches positions to another grid; timm's way (bicubic, antialiased) unless it says otherwise.
_STRETCHING = {"hf-dinov2": ("bicubic", False), "conch": ("bilinear", False), "conch-v1.5": ("bilinear", False)}


def fit_positions(model: torch.nn.Module, state: dict[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    """Positions of a ViT trained on another input size, stretched to the network's own grid of patches."""
    from timm.layers import resample_abs_pos_embed

    trunk: Any = getattr(model, "trunk", model)
    key = "trunk.pos_embed" if trunk is not model else "pos_embed"
    own = getattr(trunk, "pos_embed", None)
    if own is None or key not in state or state[key].shape == own.shape or state[key].shape[-1] != own.shape[-1]:
        return state
    grid = trunk.patch_embed.grid_size
    prefix = own.shape[1] - grid[0] * grid[1]
    side = round((state[key].shape[1] - prefix) ** 0.5)
    if prefix < 0 or side * side + prefix != state[key].shape[1]:
        return state  # no square of patches: strict loading names it
    how, antialias = _STRETCHING.get(layout, ("bicubic", True))
    stretched = resample_abs_pos_embed(
        state[key], list(grid), [side, side], num_prefix_tokens=prefix, interpolation=how, antialias=antialias
    )
    return {**state, key: stretched}


def load_strictly(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load weights; every parameter must be there, and nothing else save a classifier.

    Raises:
        StoreError: Keys are missing or unexpected, or shapes differ; with the first of each.
    """
    own = model.state_dict()
    extra = [key for key in state if key not in own and not key.startswith(_HEADS)]
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
        for what, found in (("keys missing", missing), ("keys unexpected", extra), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise StoreError(
            "the weights don't fit the architecture: " + "; ".join(problems),
            where=str(path),
            hint="check that the file belongs to this encoder; `pathpipe encoders NAME` shows its architecture",
        )
    model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)

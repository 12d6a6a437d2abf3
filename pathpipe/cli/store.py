"""`pathpipe store`: look into, convert, join, pack and verify files of features, pathpipe's own or another tool's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathpipe.cli.listing import FormOption

if TYPE_CHECKING:
    from pathpipe.url import Place

# text, not paths: a URL doesn't survive being one
PathsArgument = Annotated[
    list[str], typer.Argument(help="Files of features, folders or bucket prefixes of them, or a run")
]
CoordsOption = Annotated[
    Path | None,
    typer.Option("--coords", help="Coordinate file, or a folder of them, for features that don't say where tiles lie"),
]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", help="Name of the encoder, where the files don't say it (verify: in its place)"),
]
SlidesOption = Annotated[
    str | None, typer.Option("--slides", help="Cohort table, folder of slides or one slide the features are of")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Look into, convert, join and verify files of features.", no_args_is_help=True)
    for command in (inspect, convert, merge, pack, verify):
        group.command(command.__name__)(command)
    group.callback()(_group)
    app.add_typer(group, name="store")


def _group() -> None:
    """Look into, convert, join and verify files of features."""


def inspect(
    path: Annotated[str, typer.Argument(help="A file of tiles or features of any tool, a pack, or a folder of them")],
    coords: CoordsOption = None,
    form: FormOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --form json")] = False,
) -> None:
    """Say what a file holds, what made it and what is wrong with it; exits 1 when something is.

    Known by content: pathpipe, CLAM (h5 and pt), TRIDENT, STAMP, slide2vec, AtlasPatch, LazySlide and wsidata, AnnData,
    and bare .pt, .npy and .npz arrays. A folder or run is listed, one row a file.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.errors import ExitCode
    from pathpipe.store.bucket import bucket_files, fetched
    from pathpipe.store.inspect import describe
    from pathpipe.store.zarr import is_zarr
    from pathpipe.url import place

    form, source = "json" if as_json else form, place(path)
    if source.is_dir() and not is_zarr(source) if isinstance(source, Path) else bucket_files(source) != [source]:
        _inspect_folder(source, coords, form)
        return
    with fetched(source) as at_hand:
        found = describe(at_hand, coords)
    rows = [["layout", found.layout], *([name, str(value)] for name, value in found.facts.items())]
    rows += [["problem", problem] for problem in found.problems]
    print_table(["field", "value"], rows, form)
    if found.problems:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _inspect_folder(folder: Place, coords: Path | None, form: str) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.errors import ExitCode, RemoteError, StoreError
    from pathpipe.store.bucket import fetched
    from pathpipe.store.inspect import describe

    rows: list[list[Any]] = []
    for path in _files([str(folder)]):
        try:
            with fetched(path) as at_hand:
                found = describe(at_hand, coords)
            encoder = found.facts.get("encoder", found.facts.get("encoder name", found.facts.get("encoders", "")))
            holds = found.facts.get("features", "")
            rows.append([str(path), found.layout, encoder, holds, "; ".join(found.problems)])
        except (StoreError, RemoteError) as error:
            rows.append([str(path), "", "", "", error.what])
    print_table(["file", "layout", "encoder", "features", "problems"], rows, form)
    if any(row[-1] for row in rows):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _files(sources: list[str]) -> list[Place]:
    """Every file of features at the places named."""
    from pathpipe.store.bucket import bucket_files
    from pathpipe.store.layouts.detect import feature_files
    from pathpipe.url import place

    found: list[Place] = []
    for source in map(place, sources):
        found += feature_files(source) if isinstance(source, Path) else bucket_files(source)
    return found


def convert(  # noqa: PLR0913 - typer makes an option of each parameter
    sources: PathsArgument,
    to: Annotated[str, typer.Option("--to", help="native, zarr, clam, trident, stamp or anndata")],
    out: Annotated[
        str, typer.Option("-o", "--out", help="Folder or bucket prefix the new files go to (RUN/features for a run)")
    ],
    coords: CoordsOption = None,
    slides: SlidesOption = None,
    mpp: Annotated[
        float | None, typer.Option("--mpp", min=0.05, max=40, help="um/px of level 0 of all slides, where unknown")
    ] = None,
    encoder: EncoderOption = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Go on where the new layout can't hold all of it, and say what was left out")
    ] = False,
    form: FormOption = "table",
) -> None:
    """Convert features of any known layout; nothing is lost without --lossy, and nothing unknown is guessed.

    What pathpipe knows and another layout has no place for travels in one attribute `pathpipe`, so that the way back
    gives the same file. Files that can't be converted are named; exits 1 when there are any.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.errors import ExitCode, SettingsError
    from pathpipe.store.convert import Conversion, convert_files
    from pathpipe.store.origins import one_mpp, origins_of_slides
    from pathpipe.url import place

    if slides is not None and mpp is not None:
        raise SettingsError("--slides and --mpp both say the um/px", hint="give one of the two")
    wanted = Conversion(to, place(out), coords, encoder=encoder, lossy=lossy)
    if slides is not None:
        wanted = replace(wanted, origin=origins_of_slides(place(slides)))
    elif mpp is not None:
        wanted = replace(wanted, origin=one_mpp(mpp))
    rows, failed = [], False
    for done in convert_files(_files(sources), wanted):
        what = str(done.error) if done.error else "; ".join(done.lost)
        failed = failed or done.error is not None
        rows.append([done.slide_id, done.rows, ", ".join(map(str, (*done.files, *done.urls))), what])
    print_table(["slide", "rows", "files", "error" if failed else "left out"], rows, form)
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Files of features, folders of them, or a run")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder the files go to (RUN/features for a run)")],
    side_by_side: Annotated[
        bool,
        typer.Option("--side-by-side", help="Join several encoders of the same slides: rows side by side, as `a+b`"),
    ] = False,
) -> None:
    """Merge folders of features: more slides of one encoder, or (--side-by-side) more encoders of the same slides.

    Slides are copied only when every file is of the same encoder, weights and transform. Encoders are joined only when
    their rows are of the same tiles. Files of other tools are brought over with `store convert --to native` first.
    """
    from pathpipe.store.merge import merge_encoders, merge_slides

    for path in (merge_encoders if side_by_side else merge_slides)(sources, out):
        print(path)


def pack(
    folder: Annotated[Path, typer.Argument(help="Folder of features of one encoder, e.g. RUN/features/uni, or a run")],
) -> None:
    """Pack the bags of a folder into one file beside it, from which training then reads.

    The pack is used as long as it holds what the feature files hold; run this again after they change.
    """
    from pathpipe.errors import StoreError
    from pathpipe.run import Run
    from pathpipe.store.layouts.detect import feature_files
    from pathpipe.store.pack import pack_path, renew_pack

    features = folder / "features"
    parents = sorted(path for path in features.iterdir() if path.is_dir()) if Run.exists(folder) else [folder]
    if not parents:
        raise StoreError("has no features yet", where=str(folder), hint="run `pathpipe extract` first")
    for parent in parents:
        packed, made = renew_pack(feature_files(parent), pack_path(parent))
        rows = len(packed.features)
        print(f"{packed.path}: {len(packed.sources)} slides, {rows} rows, {'made' if made else 'up to date'}")


def verify(  # noqa: PLR0913 - typer makes an option of each parameter
    sources: PathsArgument,
    slides: SlidesOption = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Rows to encode again, of each file")] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of rows")] = 0,
    max_drift: Annotated[
        float, typer.Option("--max-drift", min=0, max=1, help="Largest drift that still counts as close")
    ] = 0.1,
    encoder: EncoderOption = None,
    weights: Annotated[str | None, typer.Option("--weights", help="Local checkpoint of the encoder")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N")] = "auto",
    coords: CoordsOption = None,
    form: FormOption = "table",
) -> None:
    """Encode random rows again from the slides and say how far they are from what is stored.

    Also for files of CLAM, TRIDENT, STAMP and the others: the tile is read as large as they say it is. Drift is 0 when
    nothing has changed and 1 when a row is no nearer to its tile than those of other tiles; up to 0.01 is `same`, up to
    --max-drift `close`. Exits 1 when a file is different or can't be verified.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.cohort import Cohort
    from pathpipe.errors import ExitCode, SettingsError
    from pathpipe.run import Run
    from pathpipe.stages.verify import VerifyRequest, verify_files
    from pathpipe.url import place

    if slides is None and not Run.exists(Path(sources[0])):
        raise SettingsError("says not where the slides are", where="--slides", hint="a folder of slides or a cohort")
    cohort = Run(Path(sources[0])).cohort if slides is None else Cohort.read(place(slides))
    files = _files(sources)
    wanted = VerifyRequest(sample, seed, max_drift, encoder, weights, device, coords)
    rows, failed = [], False
    for found in verify_files(files, cohort, wanted):
        failed = failed or found.state in ("different", "failed")
        numbers = [f"{value:.5f}" for value in (found.mean, found.least, found.others, found.drift)]
        rows.append([found.slide_id, found.layout, found.encoder, found.rows, *numbers, found.state, found.note])
    columns = ["slide", "layout", "encoder", "rows", "mean cosine", "least", "other tiles", "drift", "verdict", "note"]
    print_table(columns, rows, form)
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED)

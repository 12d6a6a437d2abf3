"""`pathpipe encoders`: the table, one entry in full, and `pull`, which fetches weights before a long run needs them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pathpipe.cli.listing import FormOption, as_text

NOT_STATED = "not stated"


class _NameOrCommand(TyperGroup):
    """`encoders` lists, `encoders NAME` shows, `encoders pull NAME` fetches: a name that is no command is shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h")):
            args = ["list", *args]
        elif args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="encoders",
    cls=_NameOrCommand,
    help="The encoders: `pathpipe encoders` lists them, `pathpipe encoders NAME` shows one.",
    rich_markup_mode="rich",
)


def register(root: typer.Typer) -> None:
    """Add the commands to the app."""
    root.add_typer(app)
    root.command("slide-encoders")(slide_encoders)


@app.command("list")
def list_encoders(form: FormOption = "table") -> None:
    """List the encoders: width, input, size, licence, access, and whether the weights are on this machine."""
    from pathpipe.cli.tables import print_table
    from pathpipe.encoders.catalogue import encoder_names, encoder_record
    from pathpipe.encoders.fetch import at_hand

    rows = []
    for name in encoder_names():
        record = encoder_record(name)
        size = NOT_STATED if record.parameters is None else f"{record.parameters / 1e6:.0f}M"
        mpp = NOT_STATED if record.mpp is None else f"{record.mpp:g}"
        access = "gated" if record.gated else "by hand" if record.weights.manual else "open"
        here = "yes" if at_hand(record) else "no"
        licence = record.licence or NOT_STATED
        rows.append([name, record.dim, record.input_px, mpp, size, record.domain, licence, access, here])
    columns = ["encoder", "dim", "input px", "um/px", "size", "domain", "licence", "access", "weights here"]
    print_table(columns, rows, form)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="An encoder, timm:NAME, torchscript:FILE or onnx:FILE")],
    form: FormOption = "table",
) -> None:
    """Show one encoder in full: architecture, input, licence, where its weights come from and how to get them.

    `pathpipe encoders NAME` is the same.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.encoders.catalogue import encoder_record
    from pathpipe.encoders.fetch import at_hand, how_to_get
    from pathpipe.encoders.files import encoder_file, is_file_encoder

    record = encoder_record(name)
    path = encoder_file(name, None) if is_file_encoder(name) else at_hand(record)
    rows: list[list[Any]] = []
    for field, value in record.model_dump(mode="json").items():
        if value is None and field in ("mpp", "tile_px", "licence", "parameters", "sha256"):
            rows.append([field, NOT_STATED])
        elif value not in (None, {}):
            rows.append([field, as_text(value)])
    rows.append(["transform", record.transform])
    rows.append(["weights here", str(path) if path else "no"])
    if path is None:
        rows.append(["to get them", how_to_get(record)])
    print_table(["field", "value"], rows, form)


@app.command("pull")
def pull(
    names: Annotated[list[str], typer.Argument(help="Encoders whose weights to fetch", metavar="NAME...")],
    offline: Annotated[bool, typer.Option("--offline", help="Only look on this machine")] = False,
) -> None:
    """Fetch the weights of encoders; print each one's sha256 and path.

    Done once where there is a network, later runs need none (`--offline`). Gated weights want `HF_TOKEN`.
    """
    from pathpipe.encoders.catalogue import encoder_record
    from pathpipe.encoders.fetch import check_published, find_weights, weights_sha256

    for name in names:
        record = encoder_record(name)
        path = find_weights(record, None, offline)
        check_published(record, path)
        print(f"{weights_sha256(path)}  {path}")


def slide_encoders(
    name: Annotated[str | None, typer.Argument(help="One slide encoder in full")] = None,
    form: FormOption = "table",
) -> None:
    """List the slide encoders, or show one: what it needs of the tiles, its licence, where it comes from."""
    from pathpipe.cli.tables import print_table
    from pathpipe.encoders.slide.catalogue import SLIDE_ENCODERS, slide_encoder_card, slide_encoder_names

    if name is not None:
        card = slide_encoder_card(name)
        facts = card.model_dump(mode="json")
        rows = [[field, as_text(value)] for field, value in facts.items() if value not in (None, {}, "", False)]
        source = SLIDE_ENCODERS.source(name) if name in SLIDE_ENCODERS else "no package yet (docs/plugins.md)"
        print_table(["field", "value"], [*rows, ["from", source]], form)
        return
    rows = []
    for known in slide_encoder_names():
        card = slide_encoder_card(known)
        needs = card.needs
        tiles = "any" if needs.tile_um is None else f"{needs.tile_px} px at {needs.mpp:g} um/px"
        source = SLIDE_ENCODERS.source(known) if known in SLIDE_ENCODERS else "no package yet"
        dim = "as features" if card.dim is None else str(card.dim)
        licence = NOT_STATED if card.weights and not card.licence else card.licence or ""
        rows.append([known, dim, ", ".join(needs.encoders) or "any", tiles, licence, source, card.summary])
    print_table(["slide encoder", "dim", "tile encoder", "tiles", "licence", "from", "idea"], rows, form)

"""`pathpipe demo`: every stage on real pixels, without network, with a report to open."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from pathpipe.cli.session import QuietOption, Request, run_stage, stderr_console


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("demo")(demo)


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for slides and results")] = Path("pathpipe-demo"),
    quiet: QuietOption = False,
) -> None:
    """Run every stage on a small cohort made from real pixels; needs no network.

    It shows that the pipeline works. It does not show that a model does: all patients are made from two images, and the
    default encoder is an ImageNet network, not a pathology model.
    """
    from rich.progress import Progress

    from pathpipe.samples import DEMO_SETTINGS
    from pathpipe.samples.cohort import build_demo_cohort

    started = time.monotonic()
    console = stderr_console()
    console.print("[bold]This is a demonstration.[/bold] " + NOTICE, highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        task = bars.add_task("making slides")
        build_demo_cohort(out, lambda done, total: bars.update(task, completed=done, total=total))
    settings = out / "demo.yaml"
    shutil.copyfile(DEMO_SETTINGS, settings)
    run = out / "run"
    run_stage("report", Request(source=None, out=run, config=settings, quiet=quiet), {})
    _say_where(out, run, time.monotonic() - started)


NOTICE = (
    "Its patients are made from two real images (H&E and IHC), half of them with regions of the other tissue set in; "
    "the encoder is an ImageNet network. The numbers show that the pipeline works, not that a model does."
)


def _say_where(out: Path, run: Path, seconds: float) -> None:
    import json

    name = next((run / "evaluate").iterdir()).name
    found = json.loads((run / "evaluate" / name / "evaluation.json").read_text(encoding="utf-8"))
    print(f"\ndone in {seconds:.0f} s\n")
    for label, part in (("ABMIL", found["model"]), (found["baseline_name"], found["baseline"])):
        if part:
            auroc = part["metrics"]["AUROC"]
            print(f"  AUROC of {label}: {auroc['value']:.3f} (95% interval {auroc['low']:.3f} to {auroc['high']:.3f})")
    print(f"\n  report     {run / 'report.html'}   <- open this")
    print(f"  slides     {out / 'slides'}   truth in {out / 'truth'}")
    print(f"  tiles      {run / 'tiles'}   (*.jpg to look at, *.h5 for CLAM and TRIDENT)")
    print(f"  features   {run / 'features'}")
    print(f"  model      {run / 'train' / name}")
    print(f"  heatmaps   {run / 'heatmaps' / name}")
    print("\nTry next:")
    print(f"  pathpipe view {run}          # slides, heatmaps and truth in the browser")
    print(f"  pathpipe train {run} --model gated-abmil          # another model on the same features")
    print(f"  pathpipe predict {run / 'train' / name} {out / 'slides'} -o {out / 'predicted'}")
    print(f"  pathpipe store inspect {run / 'features' / 'efficientnet-lite0' / 'D01a.h5'}")
    print("  pathpipe tile YOUR_SLIDES/ -o runs/first          # your own slides")

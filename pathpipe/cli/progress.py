"""What a person sees while work goes on: bars on a terminal, one line a unit elsewhere. All of it on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt
from pathpipe.progress import Progress
from pathpipe.stages.chain import SLIDE_STAGES

_MARKS = {
    "done": "[green]✔[/green]",
    "current": "[dim]=[/dim]",
    "empty": "[yellow]∅[/yellow]",
    "failed": "[red]✘[/red]",
    "stale": "[yellow]≠[/yellow]",
}


class Display(Listener):
    """Bars or lines, as the console allows. Use it as a context manager around the work."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._bars: Bars | None = None
        self._total: TaskID | None = None
        self._inner: dict[str, TaskID] = {}
        self._verb = ""

    def begin(self, stages: Sequence[str], count: int) -> None:
        """Start a bar for this group of units."""
        self._verb = " · ".join(stages)
        self._end_bars()
        if self.quiet or not self.console.is_terminal or count < 2:
            return
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}[/dim]"),
            console=self.console,
            transient=True,
        )
        self._bars.start()
        self._total = self._bars.add_task(f"[bold]{escape(self._verb)}[/bold]", total=count, note="")

    def progress(self, message: Progress) -> None:
        """Move the unit's own bar."""
        if self._bars is None:
            return
        if message.key not in self._inner:
            self._inner[message.key] = self._bars.add_task(
                f"  {escape(message.stage)} {escape(message.key)}", total=message.total or None, note=""
            )
        self._bars.update(
            self._inner[message.key],
            description=f"  {escape(message.stage)} {escape(message.key)}",
            completed=message.done,
            total=message.total or None,
            note=message.note,
        )

    def finished(self, key: str, receipts: list[Receipt]) -> None:
        """Tick the unit off."""
        if self._bars is not None and self._total is not None:
            if key in self._inner:
                self._bars.remove_task(self._inner.pop(key))
            self._bars.advance(self._total)
        quiet = self.quiet or receipts[-1].state == "current" or (self._bars is not None and receipts[-1].ok)
        if not quiet:
            self.console.print(unit_line(key, receipts, self.console.is_terminal), highlight=False, soft_wrap=True)

    def _end_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._total, self._inner = None, None, {}

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bars()


def unit_line(key: str, receipts: list[Receipt], terminal: bool) -> str:
    """One line that says what became of a unit: `extract S012 done, 1,234 tiles, 3.2 s`."""
    last = receipts[-1]
    counts = {name: value for receipt in receipts for name, value in receipt.counts.items()}
    seconds = sum(receipt.seconds for receipt in receipts)
    parts = [f"{value:,.4g} {name}" if value < 1 else f"{value:,.10g} {name}" for name, value in counts.items()]
    parts += [f"{seconds:.1f} s"] if seconds >= 0.05 else []
    parts += [escape(last.reason)] if last.reason else []
    mark = f"{_MARKS.get(last.state, '')} " if terminal else ""
    unit = last.stage if key == "cohort" and last.stage not in SLIDE_STAGES else f"{last.stage} {key}"
    return f"{mark}{escape(unit)} {last.state}" + (f", {', '.join(parts)}" if parts else "")

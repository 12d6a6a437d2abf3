"""`pathpipe view`: a run's slides in the browser, with what was found on them; on this machine only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_PORT = 8765


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("view")(view)


def view(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or one that `pathpipe predict` wrote")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes any that is free")] = _PORT,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser")] = True,
) -> None:
    """Look at the slides of a run in the browser, with heatmap, tissue, tiles and truth over them; Ctrl-C ends it.

    Serves this machine only (127.0.0.1), to whoever has the address it prints, and writes nothing.
    """
    import webbrowser

    from pathpipe.run import Run
    from pathpipe.view.server import ViewServer

    server = ViewServer(Run.open(source), port)
    print(server.url, flush=True)
    if browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        server.server_close()

"""Open a page in the user's browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from pipeline.verbosity import say


def open_page(page: Path) -> None:
    """Open a file in the browser that Python finds, or that the variable BROWSER names. Without one, print its path."""
    if webbrowser.open(page.resolve().as_uri()):
        say("opened in the browser")
    else:
        print(f"no browser can be opened here; open this file in one: {page.resolve()}")

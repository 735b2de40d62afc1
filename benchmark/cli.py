"""The program `asymzoo`."""

import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from zoo.cli import app as zoo_app
from zoo.errors import AsymZooError

app = typer.Typer(
    help="Paired model zoos with and without parameter symmetries, metanetworks on them, and what symmetry does.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(zoo_app, name="zoo")


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    """Take the options of all commands."""


def main() -> None:
    """Run the command line; an error of the user's is one line on stderr and exit code 2."""
    # Every process has one thread; what a worker imports must not start more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        code = app(standalone_mode=False)
    except (AsymZooError, TyperException) as error:
        if "--debug" in sys.argv:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        bare = message.startswith("Usage:")  # no command was given: this is the help
        print(message if bare else f"asymzoo: {message}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("asymzoo: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)

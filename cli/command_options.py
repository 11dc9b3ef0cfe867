"""What commands share: ``--json``, and errors reported on stderr with an exit code for scripts."""

from __future__ import annotations

from collections.abc import Callable
from errno import EPIPE
from functools import wraps
from typing import Annotated, ParamSpec

import typer

from cli.errors import CommandError
from cli.extras import missing_extra
from cli.output import say

Parameters = ParamSpec("Parameters")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Stop waiting then (exit code 6); the job continues.")
]


def reports_errors(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """The command, whose errors end it with their exit code."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        try:
            try:
                command(*arguments, **options)
            except ModuleNotFoundError as error:
                if (missing := missing_extra(error)) is None:
                    raise
                raise missing from error
        except CommandError as error:
            say(str(error))
            raise typer.Exit(error.exit_code) from error
        except UnicodeEncodeError as error:  # of an argument, when it was to be sent or stored
            say(f"{error.object[error.start : error.end]!r} is not valid UTF-8; correct the argument.")
            raise typer.Exit(2) from error
        except OSError as error:
            if error.errno == EPIPE:  # whoever read our output has seen enough: that is typer's to end
                raise
            say(f"{error.filename or 'This machine'}: {error.strerror or error}.")
            raise typer.Exit(1) from error

    return run

"""The settings as a command has them: an error names each wrong environment variable."""

from __future__ import annotations

from pydantic import ValidationError

from cli.errors import CommandError
from store.settings import Settings
from store.settings import settings as read


class WrongSetting(CommandError):
    exit_code = 2


def settings() -> Settings:
    """Raises WrongSetting."""
    try:
        return read()
    except ValidationError as error:
        errors = [f"PAIRTUNE_{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()]
        raise WrongSetting("\n".join(errors)) from error

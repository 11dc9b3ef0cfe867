"""The settings as a command has them: an error names each wrong environment variable."""

from __future__ import annotations

from cli.errors import CommandError
from store.settings import InvalidSettings, Settings
from store.settings import settings as read


class WrongSetting(CommandError):
    exit_code = 2


def settings() -> Settings:
    """Raises WrongSetting."""
    try:
        return read()
    except InvalidSettings as error:
        raise WrongSetting(str(error)) from error

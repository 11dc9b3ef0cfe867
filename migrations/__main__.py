"""``python -m migrations``: upgrade the configured database to the newest revision."""

from migrations.upgrade import upgrade
from store.settings import settings

upgrade(settings().required_database_url)

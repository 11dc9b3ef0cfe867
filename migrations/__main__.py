"""``python -m migrations``: upgrade the configured database to the newest revision.

A database that a newer version has migrated stays as it is: after a rollback, this version runs on it.
"""

import sys

from sqlalchemy.exc import SQLAlchemyError

from migrations.revision import DatabaseTooNew
from migrations.upgrade import upgrade
from store.database import unusable
from store.settings import settings

url = settings().required_database_url
try:
    upgrade(url)
except DatabaseTooNew as error:
    sys.exit(str(error))
except SQLAlchemyError as error:
    reason = unusable(error)
    if reason is None:
        raise
    sys.exit(f"PAIRTUNE_DATABASE_URL: {reason}")

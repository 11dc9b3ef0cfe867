"""``python -m tests.schema``: migrate an empty database and fail when the models would still change it."""

from __future__ import annotations

import sys

from migrations.upgrade import differences
from tests import servers


def main() -> int:
    with servers.postgres() as url:
        found = differences(servers.with_database(url, servers.MIGRATED))
    for difference in found:
        print(difference, file=sys.stderr)
    if found:
        print("migrations/ does not build what store/tables/base.py says; write a migration.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

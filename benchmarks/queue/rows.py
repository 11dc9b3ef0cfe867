"""Many jobs at once, as rows: most of them ended, some running, the rest queued."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from store.database import open_sessions
from store.files.files import NewFile, create
from tests.conftest import make_tenant

RUNNING = 20
# About as large as a real one.
SPEC: dict[str, Any] = {
    "base": {"name": "tiny", "family": "sdxl", "source": "/tiny"},
    "method": {"type": "mapo", "mapo": {"hyperparameters": {f"parameter_{index}": "auto" for index in range(40)}}},
}
JOBS = """
INSERT INTO jobs (id, project_id, status, spec, training_file_id, queued_at, lease_expires_at, worker, progress)
SELECT 'ftjob-' || lpad(n::text, 12, '0'), :project, status, CAST(:spec AS jsonb), :file,
       now() - interval '1 second' * (:last - n),
       CASE WHEN status = 'running' THEN now() + interval '1 hour' END, 'w' || n, '{"pairs_per_second": 2.5}'
FROM (SELECT n, CASE WHEN n > CAST(:last_running AS int) THEN 'succeeded'
                     WHEN n > CAST(:last_queued AS int) THEN 'running' ELSE 'queued' END AS status
      FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n) AS made
"""


@dataclass(frozen=True)
class Filled:
    projects: list[str]
    jobs: int
    queued: int


def fill(engine: Engine, *, jobs: int, queued: int, projects: int = 10) -> Filled:
    sessions = open_sessions(engine)
    each, waiting = jobs // projects, queued // projects
    made = [make_tenant(sessions, f"p{index}").id for index in range(projects)]
    for index, project in enumerate(made):
        with sessions.begin() as session:
            file = create(session, NewFile(project, "a.zip", "fine-tune", 1, "0" * 64), status="processed")
            given = {"project": project, "spec": json.dumps(SPEC), "file": file.id}
            last_queued = index * each + waiting
            span = {"first": index * each + 1, "last_queued": last_queued, "last": (index + 1) * each}
            session.execute(text(JOBS), given | span | {"last_running": last_queued + RUNNING // projects})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE jobs")
    return Filled(made, jobs, queued)

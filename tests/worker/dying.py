"""``python -m tests.worker.dying WHERE CALL``: a training worker that ends by SIGKILL before or after the commit of the
first such call of ``store.jobs.job_leases``; the settings come from the environment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from store.jobs import job_leases
from worker.resources import resources
from worker.training.supervisor import supervise

COMMITS = {"before": "before_commit", "after": "after_commit"}


def die_at(where: str, call: str) -> None:
    carried_out: Callable[..., Any] = getattr(job_leases, call)

    def die(_session: Session) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def commit_and_die(session: Session, *given: Any, **named: Any) -> Any:
        result = carried_out(session, *given, **named)
        event.listen(session, COMMITS[where], die)
        return result

    setattr(job_leases, call, commit_and_die)


if __name__ == "__main__":
    die_at(*sys.argv[1:])
    supervise(resources(), "whichever", stopping=lambda: False)

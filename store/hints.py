"""Hints: Celery messages that name a row which a worker may claim. A lost or repeated hint changes no state.

Publish a hint after the commit that queues its row. While the broker is down, rows wait: the dispatcher publishes again
what no worker has claimed.
"""

from __future__ import annotations

from typing import Literal

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from store.gpu_classes import TRAIN, queue_of

log = structlog.get_logger()

Task = Literal["worker.tasks.read_file", "worker.tasks.train", "worker.tasks.draw"]
QUEUES: dict[Task, str] = {
    "worker.tasks.read_file": "intake",
    "worker.tasks.train": TRAIN,
    "worker.tasks.draw": "draw",
}


class Hints:
    def __init__(self, broker_url: str) -> None:
        self._celery = Celery(broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            broker_connection_timeout=2,
            broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 5, "socket_keepalive": True},
        )

    def read_file(self, file_id: str) -> bool:
        return self._send("worker.tasks.read_file", file_id)

    def train(self, job_id: str, memory_gib: int | None = None) -> bool:
        """``memory_gib``: the device memory that the job needs."""
        return self._send("worker.tasks.train", job_id, queue_of(memory_gib))

    def generate(self, generation_id: str) -> bool:
        return self._send("worker.tasks.draw", generation_id)

    def waiting(self, queue: str) -> int | None:
        """How many hints no worker has taken yet; None when the broker cannot be reached."""
        with self._celery.connection_for_write() as connection:
            try:
                connection.ensure_connection(max_retries=1, timeout=2, reraise_as_library_errors=True)
                found: int = connection.channel().queue_declare(queue).message_count
            except (OperationalError, *connection.recoverable_connection_errors) as error:
                log.warning("hint.not_counted", queue=queue, reason=str(error))
                return None
            return found

    def reachable(self) -> bool:
        with self._celery.connection_for_write() as connection:
            try:
                connection.ensure_connection(max_retries=1, timeout=2, reraise_as_library_errors=True)
            except OperationalError:
                return False
            return True

    def _send(self, task: Task, row_id: str, queue: str | None = None) -> bool:
        """False when the broker cannot be reached; the row stays as it is and is published later."""
        try:
            self._celery.send_task(task, args=[row_id], queue=queue or QUEUES[task], retry=False)
        except OperationalError as error:
            log.warning("hint.not_sent", task=task, row=row_id, reason=str(error))
            return False
        return True

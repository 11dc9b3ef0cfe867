"""The Celery app. Its messages are hints: losing or repeating one changes no state.

A task is acknowledged when it is received: PostgreSQL's lease, not the broker's visibility timeout, brings back the
work of a worker that died. Start one process a GPU with ``-P prefork -c 1``; Celery has the kernel end a prefork
process whose worker was killed.
"""

from __future__ import annotations

import mmap
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, celeryd_init, setup_logging, worker_shutting_down

from store.gpu_classes import TRAIN, queues_for
from store.hints import QUEUES
from store.logs import configure_logs
from store.settings import settings

app = Celery("pairtune", broker=settings().required_broker_url, include=["worker.tasks"])
app.conf.update(
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_keepalive": True, "socket_timeout": 30, "socket_connect_timeout": 5},
    task_acks_late=False,
    task_ignore_result=True,
    task_routes={task: {"queue": queue} for task, queue in QUEUES.items()},
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_disable_prefetch=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    # Not 1, which adds kombu's own limit to worker_disable_prefetch. kombu counts a message for ever whose
    # acknowledgement failed because the broker was away, and the worker would never take another.
    worker_prefetch_multiplier=0,
    worker_redirect_stdouts=False,
)

# One byte that the worker shares with its pool processes. No lock: it is set in a signal handler, and a pool process
# may be killed while it checks.
_stopping = mmap.mmap(-1, 1)


def stopping() -> bool:
    """Whether the worker has to end: the running task then checkpoints and gives its row back."""
    return _stopping[0] != 0


@celeryd_after_setup.connect
def _consume_fitting_queues(instance: Any, **_: object) -> None:
    """A worker of the training queue also consumes the queues of jobs that fit into its device memory."""
    queues = instance.app.amqp.queues
    if TRAIN in queues.consume_from:
        for queue in queues_for(settings().worker_memory_gib):
            queues.select_add(queue)


@worker_shutting_down.connect
def _signal_running_task(**_: object) -> None:
    _stopping[0] = 1


# The first signal comes before any log line; a receiver of the second keeps Celery from configuring logging itself.
@celeryd_init.connect
@setup_logging.connect
def _configure_logs(**_: object) -> None:
    configure_logs()

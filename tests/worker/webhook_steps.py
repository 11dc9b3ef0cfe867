"""What tests do with webhooks: make an endpoint, end a job, send what is due, look at the log."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import openai
import pytest
from openai import OpenAI
from sqlalchemy import func, update

from store.jobs import jobs
from store.tables.webhook import WebhookDelivery
from store.webhooks import delivery_log, endpoints
from store.webhooks.outbox import TYPES
from store.webhooks.signing import shown, signing_key
from tests.store.rows import queued_job
from tests.worker.receiver import Received
from worker.resources import Resources
from worker.webhooks import sending as sender


def endpoint(parts: Resources, project_id: str, url: str) -> str:
    check = signing_key(parts.settings).check
    with parts.sessions.begin() as session:
        return endpoints.create(session, project_id, url=url, events=list(TYPES.values()), key_check=check).id


def cancelled(parts: Resources, project_id: str) -> str:
    job_id = queued_job(parts.sessions, project_id)
    with parts.sessions.begin() as session:
        jobs.cancel(session, project_id, job_id)
    return job_id


def deliver(parts: Resources) -> None:
    """What is due now, each once, to its end."""
    with ThreadPoolExecutor(sender.AT_ONCE) as pool:
        sending = sender.Sending(parts, pool)
        sending.start_due()
        while not sending.idle:
            sending.collect_ended(seconds=1)


def come_due(parts: Resources) -> None:
    """As if the time of every retry had come."""
    with parts.sessions.begin() as session:
        waiting = update(WebhookDelivery).where(WebhookDelivery.next_attempt_at.is_not(None))
        session.execute(waiting.values(next_attempt_at=func.clock_timestamp()))


def log(parts: Resources, endpoint_id: str) -> list[WebhookDelivery]:
    with parts.sessions() as session:
        return delivery_log.newest_first(session, endpoint_id, after=None, limit=1000)


def only(parts: Resources, endpoint_id: str) -> WebhookDelivery:
    [delivery] = log(parts, endpoint_id)
    return delivery


def seconds_to_next(parts: Resources, endpoint_id: str) -> float | None:
    with parts.sessions() as session:
        left = func.extract("epoch", WebhookDelivery.next_attempt_at - func.clock_timestamp())
        found = session.scalar(session.query(left).filter_by(endpoint_id=endpoint_id).statement)
    return None if found is None else float(found)


def secret(parts: Resources, endpoint_id: str, version: int = 1) -> str:
    return shown(signing_key(parts.settings).secret(endpoint_id, version))


def accepts(received: Received, secret: str) -> bool:
    with OpenAI(api_key="none", webhook_secret=secret) as client:
        try:
            client.webhooks.verify_signature(received.body, received.headers)
        except openai.InvalidWebhookSignatureError:
            return False
        return True


@contextmanager
def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> Iterator[list[str]]:
    """Names of ``.test`` resolve to these addresses, one after the other; yields what was resolved."""
    real, requested = socket.getaddrinfo, list[str]()

    def answer(host: str, *rest: object, **more: object) -> object:
        name = str(host).removesuffix(".test")
        if name not in names:
            return real(host, *rest, **more)  # type: ignore[arg-type]
        address = names[name][min(requested.count(host), len(names[name]) - 1)]
        requested.append(host)
        return real(address, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", answer)
        yield requested

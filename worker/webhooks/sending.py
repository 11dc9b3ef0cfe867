"""Sending webhooks: what is due, each at least once, from a thread of the dispatcher's own.

Nothing here waits in the dispatcher's tick. A pool of threads sends; each sending is bounded in time, and an endpoint
has one under way at most, so a receiver that hangs holds up its own deliveries and nobody else's. Any number of
dispatchers may send: a claim is theirs alone, until the time at which they are taken to be dead.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from store.errors import WebhookUrlNotAllowed
from store.tables.webhook import WebhookEndpoint
from store.webhooks import delivery_log, endpoints
from store.webhooks.delivery_log import DueDelivery
from store.webhooks.egress import addresses, parse
from store.webhooks.signing import signature, signing_key
from worker.resources import Resources
from worker.webhooks.post import Answer, NoAnswer, post

log = structlog.get_logger()

AT_ONCE = 32
POLL_SECONDS = 1.0  # a poll is one query on an index of what is due
# From claiming to writing what came of it, beyond the time that the receiver has; resolving a name may take some.
LEASE_MARGIN_SECONDS = 60.0
# After each failed attempt, about 31 hours in all; sooner or later by up to JITTER of it, so that what waits for a
# receiver that was down does not come back all at one moment.
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
JITTER = 0.2


@dataclass(frozen=True)
class Unsent:
    """Why there is no answer; ``final`` where trying again is of no use."""

    reason: str
    final: bool = False


Outcome = Answer | Unsent
DISABLED = "The endpoint is disabled: it answered 410 Gone."


class Sending:
    """What this process is sending: a future for each endpoint."""

    def __init__(self, parts: Resources, pool: ThreadPoolExecutor) -> None:
        self._parts = parts
        self._pool = pool
        self._under_way: dict[Future[None], str] = {}

    def start_due(self) -> int:
        """Claim what is due and hand it to the threads that are free; returns how much."""
        free = AT_ONCE - len(self._under_way)
        if free == 0:
            return 0
        with self._parts.sessions.begin() as session:
            claimed = delivery_log.claim(
                session,
                limit=free,
                lease_seconds=self._parts.settings.webhooks_timeout_seconds + LEASE_MARGIN_SECONDS,
                busy=set(self._under_way.values()),
            )
        for due in claimed:
            self._under_way[self._pool.submit(send, self._parts, due)] = due.endpoint_id
        return len(claimed)

    def collect_ended(self, *, seconds: float) -> None:
        """Wait until one has ended, or that long."""
        if not self._under_way:
            return
        ended, _ = wait(self._under_way, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in ended:
            del self._under_way[future]
            error = future.exception()
            if error is not None:  # its claim runs out and it is sent again
                log.error("webhook.sending_failed", exc_info=error)

    @property
    def idle(self) -> bool:
        return not self._under_way


def run(parts: Resources, stop: threading.Event) -> None:
    """Until ``stop``; what is under way then is ended first. Should this ever fail, the dispatcher ends with it and
    is started again, rather than go on without webhooks."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every URL, and those may hold their own secrets
    try:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
            sending = Sending(parts, pool)
            while not stop.is_set():
                _poll(sending)
                if sending.idle:
                    stop.wait(POLL_SECONDS)
                else:
                    sending.collect_ended(seconds=POLL_SECONDS)
    finally:
        stop.set()


def _poll(sending: Sending) -> None:
    try:
        sending.start_due()
    except (OperationalError, PoolTimeout) as error:
        log.warning("webhook.database_unreachable", reason=str(error))


def send(parts: Resources, due: DueDelivery) -> None:
    """One attempt, and what came of it. What cannot be written is sent again: at least once."""
    with parts.sessions() as session:
        endpoint = session.get(WebhookEndpoint, due.endpoint_id)
    if endpoint is None:
        return  # deleted since the claim, and the delivery with it
    outcome = _attempt(parts, endpoint, due)
    with parts.sessions.begin() as session:
        _record(session, due, outcome)
    log.info("webhook.sent", delivery=due.id, attempt=due.attempt, status=_status(outcome))


def _attempt(parts: Resources, endpoint: WebhookEndpoint, due: DueDelivery) -> Outcome:
    """No connection to the database is held meanwhile."""
    if endpoint.disabled_at is not None:
        return Unsent(DISABLED, final=True)
    try:
        signatures = _signatures(parts, due, timestamp := int(time.time()))
    except OSError as error:
        return Unsent(f"The dispatcher cannot read its signing key: {error.strerror}.")
    if not signatures:
        return Unsent("The signing secret was made from another PAIRTUNE_WEBHOOKS_KEY than the dispatcher has.")
    headers = {
        "content-type": "application/json",
        "user-agent": "pairtune-webhooks",
        "webhook-id": due.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
    try:
        target = parse(endpoint.url, parts.settings)
        found = addresses(target, parts.settings)
        return post(target, found, headers, due.body, seconds=parts.settings.webhooks_timeout_seconds)
    except (WebhookUrlNotAllowed, NoAnswer) as error:
        return Unsent(str(error))


def _signatures(parts: Resources, due: DueDelivery, timestamp: int) -> list[str]:
    """By every secret that is valid now, newest first; receivers take any one."""
    key = signing_key(parts.settings)
    with parts.sessions() as session:
        versions = endpoints.valid_secrets(session, due.endpoint_id, key_check=key.check)
    return [
        signature(key.secret(due.endpoint_id, version), event_id=due.event_id, timestamp=timestamp, body=due.body)
        for version in versions
    ]


def _record(session: Session, due: DueDelivery, outcome: Outcome) -> None:
    status = _status(outcome)
    if status is not None and 200 <= status < 300:
        delivery_log.delivered(session, due, status=status)
        return
    final = status == 410 or (isinstance(outcome, Unsent) and outcome.final)
    if status == 410:
        endpoints.disable(session, due.endpoint_id)  # before any delivery: deletion locks in this order, too
    again_in = None if final else retry_delay(due.attempt)
    delivery_log.failed(session, due, status=status, error=_reason(outcome), again_in=again_in)
    if status == 410:
        delivery_log.give_up_all(session, due.endpoint_id, error=DISABLED)


def retry_delay(attempt: int) -> float | None:
    """Seconds from the failure of this attempt, counted from 1, to the next one; None: there is none."""
    if attempt > len(RETRY_SECONDS):
        return None
    return RETRY_SECONDS[attempt - 1] * random.uniform(1 - JITTER, 1 + JITTER)


def _status(outcome: Outcome) -> int | None:
    return outcome.status if isinstance(outcome, Answer) else None


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome, Unsent):
        return outcome.reason
    redirect = " Redirects are not followed." if 300 <= outcome.status < 400 else ""
    return f"The receiver answered {outcome.status}.{redirect} {outcome.body}".strip()

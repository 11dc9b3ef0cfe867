"""Rate limits: a token bucket for each key, in the broker, where all API processes share it.

A bucket is one number, the moment at which it will be full again; a request puts that off by the time that one token
takes to come back, and is rejected where more than a whole bucket would then be missing. A process takes a few tokens
at a time, so that not each request has to wait for the broker. The broker decides nothing else here: while it does not
answer, requests pass.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import structlog
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from store.errors import AddressRateLimited, RateLimited
from store.tenants.limits import ProjectLimits

log = structlog.get_logger()

ANSWER_SECONDS = 0.25  # a broker on the same network takes well under a millisecond
SILENCE_SECONDS = 5.0  # after no answer, how long the broker is left alone: no request then waits for it
AHEAD = 20  # a process takes up to one part in so many of a bucket ahead
ADDRESS_BURSTS = 6  # an address may send the requests of so many parts of a minute at once
MAX_RESERVES = 10_000  # keys that a process remembers tokens of

# Times in microseconds by the broker's clock; they fit exactly into Lua's numbers until the year 2255.
# KEYS[1] the bucket; ARGV[1] a token's time, ARGV[2] the bucket's size in tokens, ARGV[3] tokens wanted.
# Returns tokens given, tokens left, time until full; where none is given, the time to wait for one in their place.
TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local token, size = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local left = math.floor(size - (full - now) / token)
if left < 1 then
    return {0, 0, full - now, full + token - now - token * size}
end
local given = math.min(left, tonumber(ARGV[3]))
full = full + token * given
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {given, left - given, full - now, 0}
"""


@dataclass(frozen=True)
class Allowance:
    """What is left of a bucket of ``burst`` requests, and in how many seconds it is full again."""

    burst: int
    remaining: int
    full_in: float


@dataclass
class Reserve:
    """Tokens that this process has taken ahead, and the state of their bucket then.

    At ``full_at``, by this process's clock, the bucket would be full without them too: they are worth nothing then.
    """

    tokens: int
    left: int
    full_at: float


def connect(broker_url: str, seconds: float = ANSWER_SECONDS) -> Redis:
    """A client of the broker, for what a request waits for. Raises ValueError for a URL of no broker."""
    # Kombu's words for a unix socket and a database on it. A scheme that redis does not know raises here.
    url = broker_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
    )


def _of_address(per_minute: int) -> ProjectLimits:
    return ProjectLimits(requests_per_minute=per_minute, requests_burst=max(1, per_minute // ADDRESS_BURSTS))


class Buckets:
    def __init__(self, broker_url: str) -> None:
        self._broker = connect(broker_url)
        self._take = self._broker.register_script(TAKE)
        self._silent_until = 0.0
        self._reserves: dict[tuple[str, ProjectLimits], Reserve] = {}
        self._lock = threading.Lock()

    def take_reserved_for_address(self, address: str, per_minute: int) -> bool:
        """Whether there was a token that was taken ahead: without the broker."""
        return self.take_reserved(f"address:{address}", _of_address(per_minute)) is not None

    def take_for_address(self, address: str, per_minute: int) -> None:
        """A token of the bucket of an address. Raises AddressRateLimited."""
        try:
            self.take(f"address:{address}", _of_address(per_minute))
        except RateLimited as error:
            raise AddressRateLimited(
                error.per_minute, burst=error.burst, full_in=error.full_in, retry_in=error.retry_in
            ) from error

    def take(self, key_id: str, limits: ProjectLimits) -> Allowance | None:
        """A token of this key's bucket; None where there is no limit, or no broker. Raises RateLimited."""
        if limits.requests_per_minute is None:
            return None
        allowance = self.take_reserved(key_id, limits)
        if allowance is not None or time.monotonic() < self._silent_until:
            return allowance
        try:
            return self._take_from_broker(key_id, limits, limits.requests_per_minute)
        except RedisError as error:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            log.warning("rate_limit.not_counted", reason=str(error), seconds=SILENCE_SECONDS)
            return None

    def close(self) -> None:
        self._broker.close()

    def take_reserved(self, key_id: str, limits: ProjectLimits) -> Allowance | None:
        """A token that was taken ahead, if there is one: without the broker."""
        now = time.monotonic()
        with self._lock:
            reserve = self._reserves.get((key_id, limits))
            if reserve is None or reserve.tokens < 1 or reserve.full_at <= now:
                return None
            reserve.tokens -= 1
            return Allowance(limits.requests_burst, reserve.left + reserve.tokens, reserve.full_at - now)

    def _take_from_broker(self, key_id: str, limits: ProjectLimits, per_minute: int) -> Allowance:
        token = round(60_000_000 / per_minute)  # whole, so that nothing is lost in sums
        burst, requested_at = limits.requests_burst, time.monotonic()
        wanted = max(1, burst // AHEAD)
        given, left, full, wait = self._take(keys=[f"pairtune:rate:{key_id}"], args=[token, burst, wanted])
        full_in = full / 1e6
        if given < 1:
            raise RateLimited(per_minute, burst=burst, full_in=full_in, retry_in=wait / 1e6)
        with self._lock:
            if len(self._reserves) >= MAX_RESERVES:
                self._reserves.clear()
            self._reserves[key_id, limits] = Reserve(given - 1, left, requested_at + full_in)
        return Allowance(burst, left + given - 1, full_in)

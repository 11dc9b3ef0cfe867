"""Rate limits: a token bucket for each key, in the broker, where all API processes share it.

A bucket is one number, the moment at which it will be full again; a request puts that off by the time that one token
takes to come back, and is refused where more than a whole bucket would then be missing. The broker decides nothing
else here: while it does not answer, requests pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from store.errors import RateLimited
from store.limits import Limits

log = structlog.get_logger()

ANSWER_SECONDS = 0.25  # a broker on the same network takes well under a millisecond
SILENCE_SECONDS = 5.0  # without an answer, for how long it is not asked again: no request then waits for it

# Times in microseconds by the broker's clock; they fit exactly into Lua's numbers until the year 2255.
# KEYS[1] the bucket; ARGV[1] a token's time, ARGV[2] the bucket's size in tokens.
# Returns tokens left, time until full, and time to wait (0: the request passes).
TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local token, size = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = full + token - now - token * size
if wait > 0 then
    return {0, full - now, wait}
end
full = full + token
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {math.floor(size - (full - now) / token), full - now, 0}
"""


@dataclass(frozen=True)
class Allowance:
    """What is left of a bucket of ``burst`` requests, and in how many seconds it is full again."""

    burst: int
    remaining: int
    full_in: float


class Buckets:
    def __init__(self, broker_url: str) -> None:
        # Kombu's name for a unix socket. One that redis does not know, such as sentinel://, raises here.
        url = broker_url.replace("redis+socket://", "unix://", 1)
        self._broker = Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._take = self._broker.register_script(TAKE)
        self._silent_until = 0.0

    def take(self, key_id: str, limits: Limits) -> Allowance | None:
        """A token of this key's bucket; None where there is no limit, or no broker. Raises RateLimited."""
        if limits.requests_per_minute is None or time.monotonic() < self._silent_until:
            return None
        token = round(60_000_000 / limits.requests_per_minute)  # whole, so that nothing is lost in sums
        try:
            left, full, wait = self._take(keys=[f"pairtune:rate:{key_id}"], args=[token, limits.requests_burst])
        except RedisError as error:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            log.warning("rate_limit.not_counted", reason=str(error), seconds=SILENCE_SECONDS)
            return None
        burst, full_in = limits.requests_burst, full / 1e6
        if wait > 0:
            raise RateLimited(limits.requests_per_minute, burst=burst, full_in=full_in, retry_in=wait / 1e6)
        return Allowance(burst, left, full_in)

    def close(self) -> None:
        self._broker.close()

"""What open requests hold at this moment: bytes that are being received, event streams.

The broker has one hash for each thing that is limited, which all API processes share: a field for each holder, with
its amount and when that ends unless it is held again. So a process that is killed holds nothing for long. While the
broker does not answer, each process counts its own.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass

import structlog
from redis import RedisError

from store.tenants.rate_limits import SILENCE_SECONDS, connect

log = structlog.get_logger()

# KEYS[1] the hash; ARGV[1] the holder, ARGV[2] its amount, ARGV[3] the limit of all together, ARGV[4] seconds.
# Returns whether it was given, and what the others hold. The clock is the broker's.
HOLD = """
local now = tonumber(redis.call('TIME')[1])
local others = 0
local held = redis.call('HGETALL', KEYS[1])
for at = 1, #held, 2 do
    local amount, ends = string.match(held[at + 1], '^(%d+) (%d+)$')
    if tonumber(ends) < now then
        redis.call('HDEL', KEYS[1], held[at])
    elseif held[at] ~= ARGV[1] then
        others = others + tonumber(amount)
    end
end
if others + tonumber(ARGV[2]) > tonumber(ARGV[3]) then
    return {0, others}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[4])))
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[4]) then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return {1, others}
"""


@dataclass(frozen=True)
class Hold:
    """Whether the amount was given; ``others`` is what other holders have of the same."""

    given: bool
    others: int


@dataclass(frozen=True)
class Own:
    """What a holder of this process has, until when by its clock."""

    amount: int
    ends_at: float


class InFlight:
    def __init__(self, broker_url: str) -> None:
        self._broker = connect(broker_url)
        self._hold = self._broker.register_script(HOLD)
        self._silent_until = 0.0
        self._own: defaultdict[str, dict[str, Own]] = defaultdict(dict)
        self._lock = threading.Lock()

    def hold(self, name: str, holder: str, amount: int, limit: int, *, seconds: int) -> Hold:
        """``amount`` in all for this holder, for so many seconds, if all holders together stay within the limit.

        What the holder had before is kept if the new amount is refused.
        """
        own = Own(amount, time.monotonic() + seconds)
        with self._lock:
            self._drop_ended(name)
            others = sum(held.amount for other, held in self._own[name].items() if other != holder)
            if others + amount > limit:
                return Hold(False, others)
            before = self._own[name].get(holder)
            self._own[name][holder] = own
        found = self._hold_in_broker(name, holder, amount, limit, seconds)
        if found is None:
            return Hold(True, others)
        if not found.given:
            self._forget(name, holder, before)
        return found

    def release(self, name: str, holder: str) -> None:
        self._forget(name, holder, None)
        try:
            if time.monotonic() >= self._silent_until:
                self._broker.hdel(_key(name), holder)
        except RedisError as error:
            self._note_silence(error)

    def close(self) -> None:
        self._broker.close()

    def _hold_in_broker(self, name: str, holder: str, amount: int, limit: int, seconds: int) -> Hold | None:
        if time.monotonic() < self._silent_until:
            return None
        try:
            given, others = self._hold(keys=[_key(name)], args=[holder, amount, limit, seconds])
        except RedisError as error:
            self._note_silence(error)
            return None
        return Hold(bool(given), others)

    def _forget(self, name: str, holder: str, before: Own | None) -> None:
        with self._lock:
            if before is not None:
                self._own[name][holder] = before
                return
            self._own[name].pop(holder, None)
            if not self._own[name]:
                del self._own[name]

    def _drop_ended(self, name: str) -> None:
        now = time.monotonic()
        for holder in [holder for holder, held in self._own[name].items() if held.ends_at <= now]:
            del self._own[name][holder]

    def _note_silence(self, error: RedisError) -> None:
        self._silent_until = time.monotonic() + SILENCE_SECONDS
        log.warning("in_flight.not_shared", reason=str(error), seconds=SILENCE_SECONDS)


def _key(name: str) -> str:
    return f"pairtune:in_flight:{name}"

"""Token buckets in a real broker: exact, shared, and no reason to wait when it is gone."""

from __future__ import annotations

import itertools
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import RateLimited
from store.tenants import rate_limits
from store.tenants.limits import ProjectLimits
from store.tenants.rate_limits import Allowance, Buckets
from tests import servers
from tests.api.polling import until

pytestmark = pytest.mark.integration
SLOW = ProjectLimits(requests_per_minute=1, requests_burst=3)


def passes(buckets: Buckets, key: str, limits: ProjectLimits) -> bool:
    try:
        return buckets.take(key, limits) is not None
    except RateLimited:
        return False


def test_a_burst_passes_and_then_one_request_for_each_token_that_comes_back(broker_url: str) -> None:
    with closing(Buckets(broker_url)) as buckets:
        taken = [buckets.take("key", SLOW) for _ in range(3)]
        assert [one.remaining for one in taken if one] == [2, 1, 0]
        assert [round(one.full_in / 60) for one in taken if one] == [1, 2, 3]
        with pytest.raises(RateLimited) as refusal:
            buckets.take("key", SLOW)
        assert refusal.value.retry_in == pytest.approx(60, abs=5)
        assert refusal.value.full_in == pytest.approx(180, abs=5)
        assert buckets.take("another key", SLOW) is not None
        quick = ProjectLimits(requests_per_minute=600, requests_burst=2)  # a token in 100 ms
        began = time.monotonic()
        assert [passes(buckets, "quick", quick) for _ in range(2)] == [True, True]
        until(lambda: passes(buckets, "quick", quick), seconds=10)
        assert time.monotonic() - began > 0.09


def test_refused_requests_cost_nothing(broker_url: str) -> None:
    limits = ProjectLimits(requests_per_minute=300, requests_burst=1)  # a token in 200 ms
    with closing(Buckets(broker_url)) as buckets:
        assert passes(buckets, "key", limits)
        began = time.monotonic()
        tries = next(number for number in itertools.count(1) if passes(buckets, "key", limits))
        assert tries > 2
        assert 0.19 < time.monotonic() - began < 5


def test_processes_that_take_at_once_share_one_bucket(broker_url: str) -> None:
    limits = ProjectLimits(requests_per_minute=1, requests_burst=25)
    with closing(Buckets(broker_url)) as one, closing(Buckets(broker_url)) as other, ThreadPoolExecutor(8) as pool:
        taken = pool.map(lambda number: passes((one, other)[number % 2], "key", limits), range(80))
        assert sum(taken) == 25


def test_a_process_takes_a_few_tokens_at_a_time_and_gives_no_more_than_there_are(broker_url: str) -> None:
    limits = ProjectLimits(requests_per_minute=1, requests_burst=103)  # five at a time
    with closing(Buckets(broker_url)) as one, closing(Buckets(broker_url)) as other:
        one.take("known", limits)  # from here on the broker knows the script
        with servers.broker_client(broker_url) as client:
            client.config_resetstat()
            taken = [one.take("key", limits) for _ in range(10)]
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 2
        assert [allowance.remaining for allowance in taken if allowance] == list(range(102, 92, -1))
        assert sum(passes(buckets, "key", limits) for _ in range(100) for buckets in (one, other)) == 93


def test_tokens_taken_ahead_are_worth_nothing_once_the_bucket_is_full_without_them(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ProjectLimits(requests_per_minute=6000, requests_burst=40)  # 10 ms a token, two at a time
    with closing(Buckets(broker_url)) as buckets:
        assert buckets.take("key", limits) is not None
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 0.021)
        assert buckets.take_reserved("key", limits) is None


def test_another_limit_is_another_purse(broker_url: str) -> None:
    with closing(Buckets(broker_url)) as buckets:
        buckets.take("key", ProjectLimits(requests_per_minute=1, requests_burst=100))
        narrow = ProjectLimits(requests_per_minute=1, requests_burst=3)
        with pytest.raises(RateLimited):  # five were taken ahead of what is now a bucket of three
            buckets.take("key", narrow)


def test_a_full_bucket_leaves_nothing_in_the_broker(broker_url: str) -> None:
    limits = ProjectLimits(requests_per_minute=1200, requests_burst=300)
    with closing(Buckets(broker_url)) as buckets, servers.broker_client(broker_url) as client:
        buckets.take("key", limits)
        until(lambda: client.dbsize() == 0, seconds=10)


def test_without_a_limit_the_broker_is_not_used(broker_url: str) -> None:
    with closing(Buckets(broker_url)) as buckets, servers.broker_client(broker_url) as client:
        assert buckets.take("key", ProjectLimits()) is None
        assert client.dbsize() == 0


def test_requests_pass_while_there_is_no_broker_and_are_counted_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "SILENCE_SECONDS", 0.1)
    with closing(Buckets(f"redis+socket://{tmp_path}/nothing")) as buckets:
        assert [buckets.take("key", SLOW) for _ in range(9)] == [None] * 9
    with servers.valkey() as url, closing(Buckets(url)) as buckets:
        buckets.take("key", SLOW)
        path = url.removeprefix("redis+socket://")
        Path(path).rename(f"{path}.away")
        buckets._broker.connection_pool.disconnect()
        assert buckets.take("key", SLOW) is None
        Path(f"{path}.away").rename(path)
        until(lambda: buckets.take("key", SLOW) is not None, seconds=10)


def test_a_broker_that_says_nothing_is_waited_for_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with closing(Buckets(f"redis+socket://{tmp_path}/silent")) as buckets:
            began = time.monotonic()
            assert [buckets.take("key", SLOW) for _ in range(1000)] == [None] * 1000
            assert rate_limits.ANSWER_SECONDS < time.monotonic() - began < 10 * rate_limits.ANSWER_SECONDS


def test_an_allowance_reports_the_bucket_as_it_is(broker_url: str) -> None:
    with closing(Buckets(broker_url)) as buckets:
        taken = buckets.take("key", ProjectLimits(requests_per_minute=60_000_000, requests_burst=1_000_000))
    assert isinstance(taken, Allowance)
    assert (taken.burst, taken.remaining, taken.full_in) == (1_000_000, 999_999, 0.05)


def test_a_process_remembers_tokens_of_a_bounded_number_of_keys(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "MAX_RESERVES", 3)
    limits = ProjectLimits(requests_per_minute=1, requests_burst=100)  # five at a time
    with closing(Buckets(broker_url)) as buckets:
        for number in range(3):
            buckets.take(f"{number}", limits)
        assert buckets.take_reserved("0", limits) is not None
        buckets.take("3", limits)
        remembered = [number for number in range(4) if buckets.take_reserved(f"{number}", limits) is not None]
        assert remembered == [3]

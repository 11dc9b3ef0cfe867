"""What is retried, for how long, and what is reported of it."""

from __future__ import annotations

import random

import pytest

from cli.client import retry
from cli.client.retry import RetryPolicy
from cli.errors import CommandError, NotReachable, RequestFailed

pytestmark = pytest.mark.unit
AWAY = NotReachable("http://there", "connection refused")


class Clock:
    """Sleeping takes no time, and moves the clock."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    return clock


def refusal(status: int, retry_after: float = 0.0, **details: str) -> RequestFailed:
    return RequestFailed(status, {"message": "No."} | details, None, retry_after)


def answers(*errors: CommandError) -> list[CommandError | str]:
    return [*errors, "at last"]


def requested(given: RetryPolicy, script: list[CommandError | str]) -> str:
    def ask() -> str:
        found = script.pop(0)
        if isinstance(found, CommandError):
            raise found
        return found

    return given.call(ask)


def test_a_server_that_is_away_is_retried_ever_more_rarely_and_reported_once(clock: Clock) -> None:
    reported: list[str] = []
    assert requested(RetryPolicy(None, reported.append), answers(*[AWAY] * 7)) == "at last"
    assert clock.slept == [0.5, 1, 2, 4, 8, 10, 10]
    assert reported == [f"{AWAY} Trying again.", "The server answers again."]


def test_a_server_that_answers_is_not_reported(clock: Clock) -> None:
    reported: list[str] = []
    assert requested(RetryPolicy(None, reported.append), answers()) == "at last"
    assert reported == []
    assert clock.slept == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_by_itself_is_retried_when_the_server_says(clock: Clock, status: int) -> None:
    assert requested(RetryPolicy(None), answers(refusal(status, retry_after=7))) == "at last"
    assert clock.slept == [7]


@pytest.mark.parametrize("refused", [refusal(401), refusal(404), refusal(500), refusal(503, generation_id="imggen-1")])
def test_what_does_not_pass_is_reported_at_once(clock: Clock, refused: RequestFailed) -> None:
    with pytest.raises(RequestFailed) as reported:
        requested(RetryPolicy(None), answers(refused))
    assert reported.value is refused
    assert clock.slept == []


def test_patience_ends_with_the_last_error(clock: Clock) -> None:
    with pytest.raises(NotReachable):
        requested(RetryPolicy(3), answers(*[AWAY] * 9))
    assert clock.now == 3
    with pytest.raises(NotReachable):
        requested(RetryPolicy(0), answers(AWAY))
    assert clock.now == 3

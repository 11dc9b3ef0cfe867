"""Turns within an API process: fair between projects, and between the works of one."""

from __future__ import annotations

import asyncio

import pytest

from api.http.turns import Claimant, Turns

pytestmark = pytest.mark.unit


class Work:
    """Work that ends when the test says so; ``order`` is who began, in order."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.order: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def request(self, *names: str) -> None:
        """``a thumbnail 3``: of project a, of its thumbnails the third."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._one(name))
        await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await asyncio.sleep(0)

    async def leave(self, name: str) -> None:
        """The client goes away."""
        self._tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._tasks[name]

    async def _one(self, name: str) -> None:
        project, work, _ = name.split()
        async with self.turns.turn(Claimant(project, work)):
            self.order.append(name)
            await self._ends[name].wait()


def test_a_flood_of_one_project_delays_another_by_one() -> None:
    async def play() -> list[str]:
        work = Work(at_once=1)
        await work.request(*(f"a thumbnail {number}" for number in range(40)))
        await work.request("b pair 0", "c pair 0")
        for _ in range(4):
            await work.end(work.order[-1])
        return work.order

    assert asyncio.run(play()) == ["a thumbnail 0", "b pair 0", "c pair 0", "a thumbnail 1", "a thumbnail 2"]


def test_an_upload_waits_for_one_of_its_own_projects_thumbnails() -> None:
    async def play() -> list[str]:
        work = Work(at_once=2)
        await work.request(*(f"a thumbnail {number}" for number in range(40)))
        await work.request("a pair 0")
        await work.end("a thumbnail 1")
        return work.order

    assert asyncio.run(play()) == ["a thumbnail 0", "a thumbnail 1", "a pair 0"]


def test_the_project_with_the_fewest_in_work_comes_first() -> None:
    async def play() -> list[str]:
        work = Work(at_once=3)
        await work.request("a x 0", "a x 1", "b x 0", "a x 2", "b x 1")
        await work.end("a x 0")  # now one of each is in work, and b was served last
        await work.end("a x 1")
        return work.order

    assert asyncio.run(play())[3:] == ["a x 2", "b x 1"]


def test_a_client_that_goes_away_takes_no_turn_and_keeps_none() -> None:
    async def play() -> list[str]:
        work = Work(at_once=1)
        await work.request("a x 0", "b x 0", "c x 0")
        await work.leave("b x 0")
        await work.leave("a x 0")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await work.end("c x 0")
        await work.request("d x 0")
        return work.order

    assert asyncio.run(play()) == ["a x 0", "c x 0", "d x 0"]


def test_a_turn_that_was_granted_to_a_client_that_just_left_goes_to_the_next() -> None:
    async def play() -> list[str]:
        work = Work(at_once=1)
        await work.request("a x 0", "b x 0", "c x 0")
        work._ends["a x 0"].set()
        await asyncio.sleep(0)  # a ends and grants b its turn, which b has not begun
        await work.leave("b x 0")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return work.order

    assert asyncio.run(play()) == ["a x 0", "c x 0"]

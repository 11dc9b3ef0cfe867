"""Drawing as a worker does it: the real program on the tiny base, its faults, and what the dispatcher brings back."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from PIL import Image

from store.generations import generation_leases, generations
from store.tables.generation import Generation
from tests import servers
from tests.api.polling import until
from tests.store.rows import add_generation, read_generation
from tests.worker.watching import PATIENCE, attempts_left, found, trainer_of
from trainer.spec.events import Failed, Sampled
from worker.dispatcher.dispatcher import Due, tick
from worker.generation import generation
from worker.generation.generation import generate
from worker.resources import Resources

pytestmark = pytest.mark.integration

Send = Callable[..., str]
LONG = {"steps": 200, "n": 10, "width": 512, "height": 512}  # minutes


@pytest.fixture
def ask(resources: Resources, project_id: str, tiny_base: Path) -> Send:
    """A queued generation of the tiny base."""
    base = {"name": "tiny", "family": "sdxl", "source": str(tiny_base)}
    return lambda **requested: add_generation(resources.sessions, project_id, **{"base": base, **requested})


def never() -> bool:
    return False


def drawn(resources: Resources, generation_id: str) -> Generation:
    generate(resources, generation_id, stopping=never)
    return read_generation(resources.sessions, generation_id)


class Drawing:
    """``generate`` in a thread; ``stopping`` is the worker's own end."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.stopping = Event()

    def start(self, resources: Resources, generation_id: str) -> Future[None]:
        return self._pool.submit(generate, resources, generation_id, stopping=self.stopping.is_set)

    def close(self) -> None:
        self.stopping.set()
        self._pool.shutdown()


@pytest.fixture
def next_to() -> Iterator[Drawing]:
    thread = Drawing()
    yield thread
    thread.close()


def test_images_are_generated_once_and_stored_with_how_they_came_about(resources: Resources, ask: Send) -> None:
    first, again = (drawn(resources, ask(n=2, width=24, height=40)) for _ in range(2))
    assert first.status == again.status == "succeeded"
    result: dict[str, Any] = first.result or {}
    assert (result["width"], result["height"], result["guidance"]) == (24, 40, 5.0)
    assert result["seconds"] > 0
    contents = [resources.blobs.read(image["sha256"]) for image in result["images"]]
    assert [len(content) for content in contents] == [image["bytes"] for image in result["images"]]
    assert [Image.open(io.BytesIO(content)).size for content in contents] == [(24, 40)] * 2
    assert contents[0] != contents[1]
    assert (again.result or {})["images"] == result["images"]  # the same seed
    generate(resources, first.id, stopping=never)
    assert read_generation(resources.sessions, first.id).attempt == 1
    assert attempts_left(resources.settings.home) == []


def test_a_size_that_the_base_cannot_have_fails_with_the_field_and_what_it_can(resources: Resources, ask: Send) -> None:
    row = drawn(resources, ask(width=42, height=24))
    assert (row.status, row.crashes) == ("failed", 0)
    message = "size: given 42x24; sides of tiny are multiples of 4"
    assert row.error == {"code": "invalid_size", "message": message, "param": "size"}


def test_an_adapter_whose_file_is_gone_fails_with_the_reason(resources: Resources, ask: Send) -> None:
    files = {"pytorch_lora_weights.safetensors": "f" * 64}
    row = drawn(resources, ask(adapter={"rank": 4}, weights="export", files=files))
    assert (row.status, (row.error or {})["code"]) == ("failed", "data_missing")


def test_what_takes_too_long_is_ended(resources: Resources, ask: Send) -> None:
    hasty = replace(resources, settings=resources.settings.model_copy(update={"images_limit_seconds": 0.5}))
    row = drawn(hasty, ask(**LONG))
    assert (row.status, row.crashes, (row.error or {})["code"]) == ("failed", 0, "time_limit")
    assert (row.error or {})["message"].startswith("It took longer than 0.5 s and was ended.")


def test_a_killed_program_is_tried_again_and_given_up_at_the_cap(
    resources: Resources, ask: Send, next_to: Drawing
) -> None:
    generation_id = ask(**LONG)
    for status in ("queued", "queued", "failed"):
        ended = next_to.start(resources, generation_id)
        found(lambda: trainer_of(generation_id)).send_signal(signal.SIGKILL)
        ended.result(PATIENCE)
        assert read_generation(resources.sessions, generation_id).status == status
    row = read_generation(resources.sessions, generation_id)
    assert (row.error or {})["code"] == "trainer_crashed"
    assert "signal SIGKILL" in (row.error or {})["message"]
    assert attempts_left(resources.settings.home) == []


def test_a_program_that_fails_after_its_last_word_is_tried_again(
    resources: Resources, ask: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Sampled(files={}, width=64, height=64, guidance=1.0, seconds=1.0)
    end = generation.GenerationEnd(exit_code=1, stderr="", last=last, stopped=False, late=False, cancelled=False)
    monkeypatch.setattr(generation, "_run", lambda *_: end)
    row = drawn(resources, ask())
    assert (row.status, row.crashes) == ("queued", 1)


def test_a_failure_that_may_pass_is_tried_again_under_its_own_code(
    resources: Resources, ask: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Failed(code="base_unavailable", message="The hub does not answer.")
    end = generation.GenerationEnd(exit_code=1, stderr="", last=last, stopped=False, late=False, cancelled=False)
    monkeypatch.setattr(generation, "_run", lambda *_: end)
    generation_id = ask()
    for crashes in range(1, resources.settings.crash_cap + 1):
        row = drawn(resources, generation_id)
        assert (row.status, row.crashes) == ("failed" if crashes == resources.settings.crash_cap else "queued", crashes)
    assert (row.error or {})["code"] == "base_unavailable"
    assert last.message in (row.error or {})["message"]


def test_a_stopping_worker_gives_the_images_back(resources: Resources, ask: Send, next_to: Drawing) -> None:
    generation_id = ask(**LONG)
    ended = next_to.start(resources, generation_id)
    program = found(lambda: trainer_of(generation_id))
    next_to.stopping.set()
    ended.result(PATIENCE)
    assert not program.is_running()
    row = read_generation(resources.sessions, generation_id)
    assert (row.status, row.crashes) == ("queued", 0)


def test_a_worker_that_lost_its_lease_ends_the_program_and_writes_nothing(
    resources: Resources, ask: Send, next_to: Drawing
) -> None:
    generation_id = ask(**LONG)
    ended = next_to.start(resources, generation_id)
    program = found(lambda: trainer_of(generation_id))
    with resources.sessions.begin() as session:
        row = session.get_one(Generation, generation_id)
        generation_leases.give_back(
            session, generation_leases.GenerationLease(generation_id, row.attempt, row.spec, row.weights)
        )
    ended.result(PATIENCE)
    until(lambda: not program.is_running(), seconds=5)
    row = read_generation(resources.sessions, generation_id)
    assert (row.status, row.attempt, row.error) == ("queued", 1, None)


def test_a_tick_publishes_what_is_queued_and_takes_back_what_a_dead_worker_held(
    resources: Resources, ask: Send, broker_url: str
) -> None:
    lost, queued = ask(), ask()
    with resources.sessions.begin() as session:
        generation_leases.claim(session, lost, worker="dead", lease_seconds=-1)
    assert tick(resources) == Due([], [], [lost, queued])
    assert read_generation(resources.sessions, lost).crashes == 1
    with servers.broker_client(broker_url) as client:
        assert client.llen("draw") == 2


def test_images_that_a_later_version_was_requested_with_are_left_to_its_workers(
    resources: Resources, ask: Send
) -> None:
    generation_id = ask(invented=1)
    drawn(resources, generation_id)
    left = read_generation(resources.sessions, generation_id)
    assert (left.status, left.attempt, left.error) == ("queued", 0, None)


def test_a_cancelled_generation_ends_its_program(
    resources: Resources, ask: Send, next_to: Drawing, project_id: str
) -> None:
    generation_id = ask(**LONG)
    running = next_to.start(resources, generation_id)
    program = found(lambda: trainer_of(generation_id))
    with resources.sessions.begin() as session:
        generations.cancel(session, project_id, generation_id)
    running.result(PATIENCE)
    assert not program.is_running()
    row = read_generation(resources.sessions, generation_id)
    assert (row.status, generations.is_cancelled(row), row.lease_expires_at) == ("failed", True, None)
    assert attempts_left(resources.settings.home) == []

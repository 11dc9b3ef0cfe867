"""Users of the API while everything around it breaks: they submit, cancel, pause, resume, and ask again until they
are answered."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from store.job_status import TERMINAL, JobStatus

JOBS = "/v1/fine_tuning/jobs"
STEPS, EVERY = 160, 20
IN_FLIGHT = 2  # fewer than workers: what one loses another takes at once, while the first may still come back
PATIENCE = 120.0  # seconds; no outage of a run lasts nearly as long
TIMEOUT = httpx.Timeout(5.0)
UPLOADED_AGAIN = 4  # every so many jobs bring an archive of their own


class NotAnswered(AssertionError):
    """The API was out of reach for longer than any fault lasts."""


@dataclass
class Wish:
    """What a user means to do with a job, and how far that is. ``at``: seconds after the job was accepted."""

    job_id: str
    action: str | None
    at: float
    back_at: float
    accepted_at: float
    requested: bool = False
    ended: bool = False


class Users:
    """``accepted``: the jobs that were answered with an id, which is the promise that is to be kept."""

    def __init__(self, urls: Sequence[str], api_key: str, archive: bytes, *, seed: int) -> None:
        self._urls = itertools.cycle(urls)
        self._client = httpx.Client(headers={"authorization": f"Bearer {api_key}"}, timeout=TIMEOUT)
        self._archive = archive
        self._draw = random.Random(seed)
        self._wishes: list[Wish] = []
        self._file_id: str | None = None
        self._no_more = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="users", daemon=True)
        self.longest_wait = 0.0
        self.failure: Exception | None = None

    @property
    def accepted(self) -> list[str]:
        return [wish.job_id for wish in self._wishes]

    @property
    def all_ended(self) -> bool:
        return all(wish.ended for wish in self._wishes)

    def start(self) -> None:
        self._thread.start()

    def submit_no_more(self) -> None:
        self._no_more.set()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        try:
            while not self._over.wait(0.2):
                self._look()
        except (NotAnswered, AssertionError) as failure:
            self.failure = failure

    def _look(self) -> None:
        open_wishes = [wish for wish in self._wishes if not wish.ended]
        if len(open_wishes) < IN_FLIGHT and not self._no_more.is_set():
            self._wishes.append(self._submit())
        for wish in open_wishes:
            status = JobStatus(self._ask("GET", f"{JOBS}/{wish.job_id}").json()["status"])
            wish.ended = status in TERMINAL
            if not wish.ended:
                self._pursue(wish, status)

    def _submit(self) -> Wish:
        number = len(self._wishes)
        if number % UPLOADED_AGAIN == 0:
            self._file_id = self._upload()
        wanted: dict[str, Any] = {
            "model": "tiny",
            "training_file": self._file_id,
            "seed": 5,
            "suffix": "chaos",
            "method": {
                "type": "mapo",
                "mapo": {"hyperparameters": {"preset": "style", "max_steps": STEPS, "batch_size": 2}},
            },
            "adapter": {"rank": 2},
            "validation": {"draws": 1},
            "checkpoints": {"every_steps": EVERY},
        }
        answer = self._ask("POST", JOBS, json=wanted, headers={"idempotency-key": f"job-{number}"})
        assert answer.status_code == 200, answer.text
        action = self._draw.choices([None, "cancel", "pause"], [6, 2, 2])[0]
        at = self._draw.uniform(0, 15)
        back_at = at + self._draw.uniform(1, 5)
        return Wish(answer.json()["id"], action, at, back_at, time.monotonic())

    def _upload(self) -> str:
        answer = self._ask(
            "POST", "/v1/files", files={"file": ("pairs.zip", self._archive)}, data={"purpose": "fine-tune"}
        )
        assert answer.status_code == 200, answer.text
        file_id: str = answer.json()["id"]
        return file_id

    def _pursue(self, wish: Wish, status: JobStatus) -> None:
        """A refusal is fine: the job has moved on meanwhile, and the next look sees where to."""
        age = time.monotonic() - wish.accepted_at
        if wish.action is not None and not wish.requested and age > wish.at:
            wish.requested = self._ask("POST", f"{JOBS}/{wish.job_id}/{wish.action}").is_success
        elif status is JobStatus.PAUSED and (age > wish.back_at or self._no_more.is_set()):
            self._ask("POST", f"{JOBS}/{wish.job_id}/resume")

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Again and again, of one API process after the other, until one of them answers."""
        began = time.monotonic()
        while not self._over.is_set():
            try:
                answer = self._client.request(method, next(self._urls) + path, **content)
            except httpx.TransportError:
                answer = None
            waited = time.monotonic() - began
            if answer is not None and answer.status_code < 500 and not _in_flight(answer):
                self.longest_wait = max(self.longest_wait, waited)
                return answer
            if waited > PATIENCE:
                raise NotAnswered(f"{method} {path}: {answer.text if answer is not None else 'no answer'}")
            time.sleep(0.1)  # polling an outage that no event tells of
        raise NotAnswered(f"{method} {path} was given up at the end of the run")


def _in_flight(answer: httpx.Response) -> bool:
    """The first request with this key is not answered yet: its process may be stopped, or dead."""
    return answer.status_code == 409 and answer.json()["error"]["code"] == "idempotency_in_flight"

"""Celery's tasks: they carry an id, reload the state, and may run any number of times."""

from __future__ import annotations

from worker.app import app, stopping
from worker.generation.generation import generate as run_generation
from worker.intake.file_intake import read_file as run_intake
from worker.resources import resources
from worker.runtime.freed_memory import keep_freed_memory
from worker.training.supervisor import supervise


@app.task(name="worker.tasks.read_file")
def read_file(file_id: str) -> None:
    keep_freed_memory()
    run_intake(resources(), file_id, stopping=stopping)


@app.task(name="worker.tasks.train")
def train(job_id: str) -> None:
    supervise(resources(), job_id, stopping=stopping)


@app.task(name="worker.tasks.draw")
def draw(generation_id: str) -> None:
    run_generation(resources(), generation_id, stopping=stopping)

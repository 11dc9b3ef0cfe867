"""The least that an answer from the database costs: a FastAPI route, a pooled connection, one indexed SELECT."""

from __future__ import annotations

import os

from fastapi import FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker

from store.tables.job import Job


def create_app() -> FastAPI:
    app = FastAPI()
    sessions = sessionmaker(create_engine(os.environ["BENCHMARK_DATABASE_URL"]))

    @app.get("/jobs/{job_id}")
    def job(job_id: str) -> dict[str, str]:
        with sessions() as session:
            found = session.execute(select(Job.id, Job.status).where(Job.id == job_id)).one()
            return {"id": found.id, "status": found.status}

    return app

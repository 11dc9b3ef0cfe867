"""Every call of LiteLLM's fine-tuning client, in its own environment: python litellm_calls.py URL KEY FILE_ID.

Prints one JSON line a call: its name, the statuses of the jobs and the hyperparameters of the first.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import litellm  # type: ignore[import-not-found]

URL, KEY, FILE = sys.argv[1:]
AT: dict[str, Any] = {"custom_llm_provider": "openai", "api_base": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
PAIRS: dict[str, Any] = {"model": "openai/tiny", "training_file": FILE}


def call(name: str, made: Callable[[], Any]) -> Any:
    answer = made()
    jobs = list(answer.data) if answer.object == "list" else [answer]
    shown = {"statuses": [job.status for job in jobs], "hyperparameters": dict(jobs[0].hyperparameters)}
    print(json.dumps({"call": name, **shown}))
    return answer


job = call("create", lambda: litellm.create_fine_tuning_job(**PAIRS, **AT))
given = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}
call("create, openai's hyperparameters", lambda: litellm.create_fine_tuning_job(**PAIRS, hyperparameters=given, **AT))
ours = {"preset": "style", "max_steps": 4}
call("create, our hyperparameters", lambda: litellm.create_fine_tuning_job(**PAIRS, hyperparameters=ours, **AT))
options: dict[str, Any] = {"suffix": "line-art", "seed": 7}
other = call(
    "acreate", lambda: asyncio.run(litellm.acreate_fine_tuning_job(**PAIRS, hyperparameters={}, **options, **AT))
)
call("list", lambda: litellm.list_fine_tuning_jobs(limit=2, **AT))
call("alist", lambda: asyncio.run(litellm.alist_fine_tuning_jobs(limit=10, **AT)))
call("retrieve", lambda: litellm.retrieve_fine_tuning_job(fine_tuning_job_id=job.id, **AT))
call("aretrieve", lambda: asyncio.run(litellm.aretrieve_fine_tuning_job(fine_tuning_job_id=job.id, **AT)))
call("cancel", lambda: litellm.cancel_fine_tuning_job(fine_tuning_job_id=job.id, **AT))
call("acancel", lambda: asyncio.run(litellm.acancel_fine_tuning_job(fine_tuning_job_id=other.id, **AT)))

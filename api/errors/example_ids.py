"""The ids that examples of the OpenAPI document name: the same object has the same id in all of them."""

from __future__ import annotations

from collections.abc import Mapping

PROJECT = "proj-0198c1f2a0007c5d8e6f708192a3b4c5"
FILE = "file-0198c1f2a0017c5d8e6f708192a3b4c5"
ADAPTER = "file-0198c1f2afff7c5d8e6f708192a3b4c5"
UPLOAD = "upload-0198c1f2a0027c5d8e6f708192a3b4c5"
PART = "part-0198c1f2a0037c5d8e6f708192a3b4c5"
DATASET = "ds-0198c1f2a0047c5d8e6f708192a3b4c5"
PAIR = "pair-0198c1f2a0057c5d8e6f708192a3b4c5"
JOB = "ftjob-0198c1f2a0067c5d8e6f708192a3b4c5"
EVENT = "ftevent-0198c1f2a0077c5d8e6f708192a3b4c5"
CHECKPOINT = "ftckpt-0198c1f2a0087c5d8e6f708192a3b4c5"
GENERATION = "imggen-0198c1f2a3b47c5d8e6f708192a3b4c5"
WEBHOOK = "webhook-0198c1f2a3b47c5d8e6f708192a3b4c5"
DELIVERY = "delivery-0198c1f2b0047c5d8e6f708192a3b4c5"
BASE = "emoji-xl"
MODEL = f"ft:{BASE}:line-art:{JOB.removeprefix('ftjob-')}"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CREATED = 1764102000  # unix seconds

# By the path parameters that take them.
IDS: Mapping[str, str] = {
    "file_id": FILE,
    "upload_id": UPLOAD,
    "dataset_id": DATASET,
    "pair_id": PAIR,
    "fine_tuning_job_id": JOB,
    "generation_id": GENERATION,
    "webhook_id": WEBHOOK,
    "delivery_id": DELIVERY,
    "model": MODEL,
}

"""Where ids come from: what a client is told beside that there is nothing under the one that it has sent."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from store.errors import (
    DatasetNotFound,
    DeliveryNotFound,
    FileNotFound,
    GenerationNotFound,
    ImageNotFound,
    JobNotFound,
    ModelNotFound,
    NotFound,
    PairNotFound,
    RejectedNotFound,
    RevisionNotFound,
    UploadNotFound,
    WebhookNotFound,
)

WHERE: dict[type[NotFound], str] = {
    FileNotFound: "GET /v1/files lists those there are",
    JobNotFound: "GET /v1/fine_tuning/jobs lists those there are",
    ModelNotFound: "GET /v1/models lists those there are",
    UploadNotFound: "POST /v1/uploads begins one and tells its id",
    GenerationNotFound: "POST /v1/images/generations makes one and tells its id",
    ImageNotFound: "GET /v1/images/generations/{generation_id} lists those there are",
    WebhookNotFound: "GET /v1/webhooks lists those there are",
    DeliveryNotFound: "GET /v1/webhooks/{webhook_id}/deliveries lists those there are",
    DatasetNotFound: "GET /v1/datasets lists those there are",
    RevisionNotFound: "GET /v1/datasets/{dataset_id}/revisions lists those there are",
    PairNotFound: "GET /v1/datasets/{dataset_id}/pairs lists those there are",
    RejectedNotFound: "GET /v1/datasets/{dataset_id}/pairs/{pair_id} tells what the pair has",
}


def in_words(error: NotFound, ids: Mapping[str, object]) -> str:
    """The error, and the route that tells what there is. ``ids`` are those of the request, by their parameters."""
    where = WHERE[type(error)]
    needed = {name for _, name, _, _ in Formatter().parse(where) if name is not None}
    return f"{error} {where.format_map(ids)}." if needed <= ids.keys() else str(error)

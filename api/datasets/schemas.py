"""What clients see of a dataset, its pairs and its revisions."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.datasets.revision_ids import revision_id
from api.errors.example_ids import CREATED, DATASET, PAIR, SHA256
from api.files.report import EXAMPLE as OF_A_FILE
from api.files.report import FileFinding, FileReport
from api.http.paging import PageWithEnds, page_of
from intake import Finding, Report
from store.tables import dataset

EXAMPLE: JsonDict = {
    "id": DATASET,
    "object": "dataset",
    "name": "foxes",
    "metadata": {"team": "a"},
    "revision": 2,
    "pairs": 1,
    "created_at": CREATED,
}
PAIRED: JsonDict = {
    "id": PAIR,
    "object": "dataset.pair",
    "dataset_id": DATASET,
    "number": 1,
    "prompt": "a red fox",
    "chosen_sha256": SHA256,
    "rejected_sha256": SHA256[::-1],
    "split": None,
    "weight": None,
    "annotator": "ada",
    "seed": None,
    "file_id": None,
    "file_row": None,
    "added_in": 2,
    "removed_in": None,
    "created_at": CREATED,
}
CHANGED: JsonDict = {
    "id": revision_id(DATASET, 2),
    "object": "dataset.revision",
    "dataset_id": DATASET,
    "number": 2,
    "what": "pair 1 added",
    "pairs": 1,
    "created_at": CREATED,
}
REVIEWED: JsonDict = OF_A_FILE | {
    "object": "dataset.report",
    "format": "dataset",
    "dropped": {},
    "rows": 240,
    "findings": [],
    "tied": 0,
    "dataset_id": DATASET,
    "revision": 2,
}


class Dataset(BaseModel):
    model_config = ConfigDict(title="Dataset", json_schema_extra={"example": EXAMPLE})

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    metadata: dict[str, str] | None
    revision: int = Field(description="The latest one; each change makes the next.")
    pairs: int = Field(description="Of the latest revision.")
    created_at: int = Field(description="Unix seconds.")

    @classmethod
    def of(cls, row: dataset.Dataset) -> Self:
        return cls(
            id=row.id,
            name=row.name,
            metadata=row.dataset_metadata,
            revision=row.revision,
            pairs=row.pairs_count,
            created_at=int(row.created_at.timestamp()),
        )


class DatasetList(PageWithEnds[Dataset]):
    model_config = ConfigDict(json_schema_extra=page_of(EXAMPLE, ends=True))


class DatasetDeleted(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"id": DATASET, "object": "dataset", "deleted": True}})

    id: str
    object: Literal["dataset"] = "dataset"
    deleted: Literal[True] = True


class DatasetPair(BaseModel):
    model_config = ConfigDict(title="DatasetPair", json_schema_extra={"example": PAIRED})

    id: str
    object: Literal["dataset.pair"] = "dataset.pair"
    dataset_id: str
    number: int = Field(description="Counts the pairs that the dataset ever had; the row that reports name.")
    prompt: str
    chosen_sha256: str = Field(description="Of the normalised image, which `.../images/chosen` returns.")
    rejected_sha256: str | None
    split: Literal["train", "validation"] | None
    weight: float | None
    annotator: str | None
    seed: int | None
    file_id: str | None = Field(description="The file that the pair came from, if from one.")
    file_row: int | None = Field(description="Its row there.")
    added_in: int = Field(description="The first revision that holds the pair.")
    removed_in: int | None = Field(description="The first revision that does not hold it any more.")
    created_at: int = Field(description="Unix seconds.")

    @classmethod
    def of(cls, row: dataset.DatasetPair) -> Self:
        own = {name: getattr(row, name) for name in cls.model_fields.keys() & row.__table__.columns.keys()}
        return cls.model_validate(own | {"created_at": int(row.created_at.timestamp())})


class DatasetPairAdded(DatasetPair):
    model_config = ConfigDict(json_schema_extra={"example": PAIRED | {"warnings": []}})

    warnings: list[FileFinding] = Field(description="What the pair shows by itself; the report compares all of them.")

    @classmethod
    def with_warnings(cls, row: dataset.DatasetPair, warnings: list[Finding]) -> Self:
        shown = [FileFinding.model_validate(warning, from_attributes=True) for warning in warnings]
        return cls(**DatasetPair.of(row).model_dump(), warnings=shown)


class DatasetPairList(PageWithEnds[DatasetPair]):
    model_config = ConfigDict(json_schema_extra=page_of(PAIRED, ends=True, revision=2))

    revision: int = Field(description="The revision that these are pairs of.")


class DatasetPairDeleted(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"example": {"id": PAIR, "object": "dataset.pair", "deleted": True, "revision": 3}}
    )

    id: str
    object: Literal["dataset.pair"] = "dataset.pair"
    deleted: Literal[True] = True
    revision: int = Field(description="The first revision without the pair.")


class DatasetRevision(BaseModel):
    model_config = ConfigDict(title="DatasetRevision", json_schema_extra={"example": CHANGED})

    id: str = Field(description="`<dataset>@<number>`: what a job takes as `training_file` to use this revision.")
    object: Literal["dataset.revision"] = "dataset.revision"
    dataset_id: str
    number: int
    what: str = Field(description="The change that made it.")
    pairs: int
    created_at: int = Field(description="Unix seconds.")

    @classmethod
    def of(cls, row: dataset.DatasetRevision) -> Self:
        return cls(
            id=revision_id(row.dataset_id, row.number),
            dataset_id=row.dataset_id,
            number=row.number,
            what=row.what,
            pairs=row.pairs_count,
            created_at=int(row.created_at.timestamp()),
        )


class DatasetRevisionList(PageWithEnds[DatasetRevision]):
    model_config = ConfigDict(json_schema_extra=page_of(CHANGED, ends=True))


class DatasetReport(FileReport):
    """As of a file; `row` is a pair's `number`."""

    model_config = ConfigDict(json_schema_extra={"example": REVIEWED})

    object: Literal["dataset.report"] = "dataset.report"  # type: ignore[assignment]
    dataset_id: str
    revision: int

    @classmethod
    def at(cls, dataset_id: str, number: int, report: Report) -> Self:
        fields = FileReport.of(report).model_dump(exclude={"object"})
        return cls.model_validate(fields | {"dataset_id": dataset_id, "revision": number})

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from store.blobs.blobs import Blobs
from store.errors import BlobMissing
from tests.store.rows import SPEC
from trainer.spec.manifest import ManifestPair
from trainer.spec.run import RunSpec
from worker.training.run_directory import Inputs, assign_splits, prepare

pytestmark = pytest.mark.unit


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(f"file://{tmp_path / 'blobs'}")


def document(blobs: Blobs, prompts: Sequence[str], splits: Sequence[str | None] = ()) -> str:
    image = blobs.put_bytes(b"image").sha256
    rows = [
        {"row": number, "prompt": prompt, "chosen": image, "rejected": image, "split": split}
        for number, (prompt, split) in enumerate(zip(prompts, splits or [None] * len(prompts), strict=True), start=1)
    ]
    return blobs.put_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows)).sha256


def inputs(training: str, validation: str | None = None, **checkpoint: Any) -> Inputs:
    return Inputs(
        RunSpec.model_validate(SPEC), training, validation, checkpoint.get("step"), checkpoint.get("files", {})
    )


def splits(pairs: Inputs, blobs: Blobs) -> dict[str, str]:
    return {pair.id: pair.split for pair in assign_splits(pairs, blobs)}


def test_a_validation_file_decides_and_its_rows_have_ids_of_their_own(blobs: Blobs) -> None:
    given = inputs(document(blobs, ["a", "b"]), document(blobs, ["c", "d"]))
    assert splits(given, blobs) == {"t1": "train", "t2": "train", "v1": "validation", "v2": "validation"}


def test_rows_marked_validation_are_held_out_with_and_without_a_validation_file(blobs: Blobs) -> None:
    marked = document(blobs, ["a", "b", "c"], ["train", "validation", None])
    own = {"t1": "train", "t2": "validation", "t3": "train"}
    assert splits(inputs(marked), blobs) == own
    assert splits(inputs(marked, document(blobs, ["d"])), blobs) == {**own, "v1": "validation"}


def test_pairs_of_one_row_have_an_id_each(blobs: Blobs) -> None:
    """As of a tie in both orders, of a task that several people judged, of tables that are numbered each."""
    image = blobs.put_bytes(b"image").sha256
    rows = [{"row": row, "prompt": "a", "chosen": image, "rejected": None, "split": None} for row in (1, 2, 2, 1, 2)]
    given = blobs.put_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows)).sha256
    assert [pair.id for pair in assign_splits(inputs(given), blobs)] == ["t1", "t2", "t2.2", "t1.2", "t2.3"]


def test_without_any_mark_the_trainer_is_left_to_hold_out(blobs: Blobs) -> None:
    assert set(splits(inputs(document(blobs, ["a", "b"])), blobs).values()) == {"train"}


def test_a_directory_holds_spec_manifest_images_and_checkpoint(blobs: Blobs, tmp_path: Path) -> None:
    state = blobs.put_bytes(b"state")
    given = inputs(document(blobs, ["a", "b"]), step=7, files={"state.json": {"sha256": state.sha256, "bytes": 5}})
    run = tmp_path / "run"
    prepare(run, given, blobs, lambda: None)
    assert RunSpec.model_validate_json((run / "spec.json").read_bytes()) == given.spec
    assert json.loads((run / "spec.json").read_bytes()) == SPEC  # and none of this version's defaults
    manifest = [json.loads(line) for line in (run / "data" / "manifest.jsonl").read_text().splitlines()]
    assert [(run / "data" / pair["chosen"]).read_bytes() for pair in manifest] == [b"image", b"image"]
    assert (run / "checkpoints" / "step-00000007" / "state.json").read_bytes() == b"state"


def test_each_side_of_a_pair_is_the_image_that_its_document_names(blobs: Blobs, tmp_path: Path) -> None:
    def listed(name: str) -> str:
        row = {"row": 1, "prompt": name, "split": None} | {
            side: blobs.put_bytes(f"{name}: {side}".encode()).sha256 for side in ("chosen", "rejected")
        }
        return blobs.put_bytes(json.dumps(row).encode() + b"\n").sha256

    data = tmp_path / "run" / "data"
    prepare(data.parent, inputs(listed("training"), listed("validation")), blobs, lambda: None)
    manifest = [ManifestPair.model_validate_json(line) for line in (data / "manifest.jsonl").read_bytes().splitlines()]
    assert [pair.prompt for pair in manifest] == ["training", "validation"]
    for pair in manifest:
        assert pair.rejected is not None
        assert (data / pair.chosen).read_bytes() == f"{pair.prompt}: chosen".encode()
        assert (data / pair.rejected).read_bytes() == f"{pair.prompt}: rejected".encode()


def test_a_pairs_weight_and_seed_stand_in_the_manifest(blobs: Blobs, tmp_path: Path) -> None:
    image = blobs.put_bytes(b"image").sha256
    plain = {"row": 1, "prompt": "a", "chosen": image, "rejected": None, "split": None}
    rows = [plain, {**plain, "row": 2, "weight": 2.5, "seed": 2**62}, {**plain, "row": 3, "weight": None, "seed": None}]
    pairs = blobs.put_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows)).sha256
    prepare(tmp_path / "run", inputs(pairs), blobs, lambda: None)
    lines = (tmp_path / "run" / "data" / "manifest.jsonl").read_bytes().splitlines()
    read = [ManifestPair.model_validate_json(line) for line in lines]
    assert [(pair.weight, pair.seed) for pair in read] == [(1.0, None), (2.5, 2**62), (1.0, None)]


def test_a_pair_without_a_rejected_image_stands_so_in_the_manifest(blobs: Blobs, tmp_path: Path) -> None:
    image = blobs.put_bytes(b"image").sha256
    row = {"row": 1, "prompt": "a", "chosen": image, "rejected": None, "split": None}
    pairs = blobs.put_bytes(json.dumps(row).encode() + b"\n").sha256
    prepare(tmp_path / "run", inputs(pairs), blobs, lambda: None)
    (line,) = (tmp_path / "run" / "data" / "manifest.jsonl").read_bytes().splitlines()
    assert ManifestPair.model_validate_json(line).rejected is None
    assert [path.stem for path in (tmp_path / "run" / "data" / "images").iterdir()] == [image]


def test_a_stop_is_noticed_between_files_and_a_missing_image_raises(blobs: Blobs, tmp_path: Path) -> None:
    given = inputs(document(blobs, ["a"]))

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare(tmp_path / "first", given, blobs, stop)
    image = hashlib.sha256(b"image").hexdigest()
    (tmp_path / "blobs" / "sha256" / image[:2] / image).unlink()
    with pytest.raises(BlobMissing):
        prepare(tmp_path / "second", given, blobs, lambda: None)

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from store.blobs import Blobs
from store.errors import BlobMissing
from tests.store.rows import SPEC
from trainer.spec.run import RunSpec
from worker.run_directory import Inputs, assign_splits, prepare

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


def inputs(training: str, validation: str | None = None, *, share: float = 0.1, **checkpoint: Any) -> Inputs:
    spec = RunSpec.model_validate({**SPEC, "validation": {"share": share}})
    return Inputs(spec, training, validation, checkpoint.get("step"), checkpoint.get("files", {}))


def splits(pairs: Inputs, blobs: Blobs) -> dict[str, str]:
    return {pair.id: pair.split for pair in assign_splits(pairs, blobs)}


def test_a_validation_file_decides_and_its_rows_have_ids_of_their_own(blobs: Blobs) -> None:
    given = inputs(document(blobs, ["a", "b"]), document(blobs, ["c", "d"]))
    assert splits(given, blobs) == {"t1": "train", "t2": "train", "v1": "validation", "v2": "validation"}


def test_the_pairs_own_split_comes_before_a_share(blobs: Blobs) -> None:
    given = inputs(document(blobs, ["a", "b", "c"], ["train", "validation", None]), share=0.5)
    assert splits(given, blobs) == {"t1": "train", "t2": "validation", "t3": "train"}


@pytest.mark.parametrize(("prompts", "held"), [(1, 0), (2, 1), (5, 1), (10, 1), (30, 3), (100, 10)])
def test_a_share_of_the_prompts_is_held_out_at_least_one_and_never_all(blobs: Blobs, prompts: int, held: int) -> None:
    names = [f"prompt {index}" for index in range(prompts)]
    found = assign_splits(inputs(document(blobs, names * 2)), blobs)
    validation = {pair.prompt for pair in found if pair.split == "validation"}
    assert len(validation) == held
    assert validation.isdisjoint(pair.prompt for pair in found if pair.split == "train")
    assert len(found) == 2 * prompts


def test_the_share_does_not_depend_on_the_order_of_the_pairs(blobs: Blobs) -> None:
    names = [f"prompt {index}" for index in range(20)]
    held = [
        {pair.prompt for pair in assign_splits(inputs(document(blobs, order)), blobs) if pair.split == "validation"}
        for order in (names, names[::-1])
    ]
    by_digest = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    assert held == [set(by_digest[:2])] * 2


def test_a_directory_holds_spec_manifest_images_and_checkpoint(blobs: Blobs, tmp_path: Path) -> None:
    state = blobs.put_bytes(b"state")
    given = inputs(document(blobs, ["a", "b"]), step=7, files={"state.json": {"sha256": state.sha256, "bytes": 5}})
    run = tmp_path / "run"
    prepare(run, given, blobs, lambda: None)
    assert RunSpec.model_validate_json((run / "spec.json").read_bytes()) == given.spec
    manifest = [json.loads(line) for line in (run / "data" / "manifest.jsonl").read_text().splitlines()]
    assert [(run / "data" / pair["chosen"]).read_bytes() for pair in manifest] == [b"image", b"image"]
    assert (run / "checkpoints" / "step-00000007" / "state.json").read_bytes() == b"state"


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

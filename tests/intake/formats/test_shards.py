"""Several tables of one archive, files of ``datasets``, WebDataset samples: every row is read, and no side swapped."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intake import Policy
from intake.formats.tables.shards import split_of_table
from tests.intake.build import codes, jsonl, only, prepare, tar_of, zip_of
from tests.intake.colours import IMAGES, numbered, pairs

pytestmark = pytest.mark.unit


def rows(*prompts: str, first: int = 0) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"prompt": prompt, "chosen": image(first + 2 * at), "rejected": image(first + 2 * at + 1)}
            for at, prompt in enumerate(prompts)
        ]
    )


def image(number: int) -> dict[str, Any]:
    return {"bytes": numbered(number), "path": None}


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def arrow(table: pa.Table, *, stream: bool = True) -> bytes:
    file = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    return file.getvalue()


ALL = [("a", 0, 1), ("b", 2, 3), ("c", 4, 5)]


@pytest.mark.parametrize("root", ["", "pickapic/", "deep/er/"])
def test_shards_of_a_repository_are_read_as_one_in_order(root: str, tmp_path: Path) -> None:
    shards = [parquet(rows("a", "b")), parquet(rows("c", first=4))]
    files = {f"{root}data/train-0000{at}-of-00002.parquet": data for at, data in reversed([*enumerate(shards)])}
    files |= {f"{root}README.md": b"# x", f"{root}dataset_infos.json": b"{}"}
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert (prepared.format, pairs(prepared), prepared.findings) == ("parquet/pairtune", ALL, ())
    assert [(pair.row, pair.split) for pair in prepared.pairs] == [(1, None), (2, None), (1, None)]


def test_a_row_of_a_shard_is_named_with_its_shard(tmp_path: Path) -> None:
    shards = [parquet(rows("a", "b")), parquet(rows("c", ""))]
    files = {f"data/train-0000{at}-of-00002.parquet": data for at, data in enumerate(shards)}
    finding = only(prepare(zip_of(files.items()), tmp_path).findings)
    assert finding.message.startswith("data/train-00001-of-00002.parquet row 2: column 'prompt' is missing or empty")


def test_shards_of_held_out_splits_are_held_out(tmp_path: Path) -> None:
    files = {
        "data/train-00000-of-00001.parquet": parquet(rows("a")),
        "data/validation_unique-00000-of-00001.parquet": parquet(rows("b", first=2)),
        "data/test-00000-of-00001.parquet": parquet(rows("c", first=4)),
    }
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert {pair.prompt: pair.split for pair in prepared.pairs} == {"a": "train", "b": "validation", "c": "validation"}
    del files["data/train-00000-of-00001.parquet"]
    alone = prepare(zip_of(files.items()), tmp_path)
    assert [pair.split for pair in alone.pairs] == [None, None]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00003.parquet", "train"), ("train/data-00000-of-00001.arrow", "train"),
        ("default/test/0000.parquet", "validation"), ("x/dev.jsonl", "validation"), ("Train/metadata.csv", "train"),
        ("val_00001.parquet", "validation"), ("metadata.jsonl", None), ("trained/x.csv", None),
    ],
)  # fmt: skip
def test_the_split_of_a_table_is_in_its_name(name: str, split: str | None) -> None:
    assert split_of_table(name) == split


@pytest.mark.parametrize("stream", [True, False])
def test_a_saved_dataset_is_read_with_all_of_its_shards_and_splits(stream: bool, tmp_path: Path) -> None:
    """As ``DatasetDict.save_to_disk`` writes it, with what it computed beside."""
    files = {
        "saved/dataset_dict.json": b'{"splits": ["train", "test"]}',
        "saved/train/data-00000-of-00002.arrow": arrow(rows("a"), stream=stream),
        "saved/train/data-00001-of-00002.arrow": arrow(rows("b", first=2), stream=stream),
        "saved/train/cache-1a2b3c4d.arrow": arrow(rows("not", "these")),
        "saved/train/state.json": b"{}",
        "saved/train/dataset_info.json": b"{}",
        "saved/test/data-00000-of-00001.arrow": arrow(rows("c", first=4), stream=stream),
    }
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert sorted(pairs(prepared)) == ALL
    assert {pair.prompt: pair.split for pair in prepared.pairs} == {"a": "train", "b": "train", "c": "validation"}


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    good = parquet(rows("a"))
    files = {"train-00000-of-00002.parquet": good, "train-00001-of-00002.parquet": good[: len(good) // 2]}
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert codes(prepared) == ["archive_unreadable"]
    assert prepared.findings[0].message.startswith("train-00001-of-00002.parquet is a damaged parquet file")
    assert not prepared.usable


@pytest.mark.parametrize("bad", [b"", b"ARROW1", b"\xff\xff\xff\xff" + bytes(20), b"PAR1PAR1", b"text"])
def test_what_is_no_table_of_arrow_is_a_finding(bad: bytes, tmp_path: Path) -> None:
    assert codes(prepare(zip_of([("data.arrow", bad)]), tmp_path)) == ["archive_unreadable"]


@pytest.mark.parametrize("name", ["metadata.parquet", "train/metadata.parquet", "data.parquet"])
def test_parquet_beside_its_images_names_them(name: str, tmp_path: Path) -> None:
    """ImageFolder's third form."""
    root = name.rpartition("/")[0]
    table = pa.table({"file_name": ["0.png", "1.png"], "text": ["a", "b"]})
    files = {f"{root}/{path}".lstrip("/"): data for path, data in IMAGES.items()} | {name: parquet(table)}
    assert pairs(prepare(zip_of(files.items()), tmp_path)) == [("a", 0, None), ("b", 1, None)]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_the_tables_of_two_splits_are_both_read(suffix: str, tmp_path: Path) -> None:
    def content(prompt: str) -> bytes:
        row = {"prompt": prompt, "chosen": "0.png", "rejected": "1.png"}
        if suffix == "csv":
            return f"{','.join(row)}\n{','.join(row.values())}\n".encode()
        return jsonl(row)

    files = {f"{split}/metadata.{suffix}": content(split) for split in ("train", "test")}
    files |= {f"train/{at}.png": numbered(at) for at in (0, 1)} | {f"test/{at}.png": numbered(2 + at) for at in (0, 1)}
    prepared = prepare(zip_of(files.items()), tmp_path)
    assert sorted(pairs(prepared)) == [("test", 2, 3), ("train", 0, 1)]
    assert {pair.prompt: pair.split for pair in prepared.pairs} == {"train": "train", "test": "validation"}


def test_pick_a_pic_as_webdataset(tmp_path: Path) -> None:
    """As the authors of MaPO and of Diffusion-ORPO write its shards."""
    files: dict[str, bytes] = {}
    for at, first in enumerate((True, False)):
        files |= {
            f"{at}.jpg_0.jpg": numbered(2 * at), f"{at}.jpg_1.jpg": numbered(2 * at + 1),
            f"{at}.label_0.txt": b"1.0" if first else b"0.0", f"{at}.label_1.txt": b"0.0" if first else b"1.0",
            f"{at}.original_prompt.txt": f"prompt {at}".encode(),
        }  # fmt: skip
    prepared = prepare(tar_of(files.items()), tmp_path, policy=Policy(prompt="for all"))
    assert (prepared.format, pairs(prepared)) == ("archive/pick-a-pic", [("prompt 0", 0, 1), ("prompt 1", 3, 2)])


@pytest.mark.parametrize("folder", ["", "shard/"])
@pytest.mark.parametrize(
    ("chosen", "rejected"), [("chosen.png", "rejected.png"), ("jpg_win", "jpg_lose"), ("w.jpg", "l.jpg")]
)
def test_samples_that_name_their_sides(folder: str, chosen: str, rejected: str, tmp_path: Path) -> None:
    files = {f"{folder}0001.{rejected}": numbered(1), f"{folder}0001.{chosen}": numbered(0)}
    files[f"{folder}0001.json"] = json.dumps({"prompt": "p", "annotator": 7}).encode()
    prepared = prepare(tar_of(files.items()), tmp_path)
    assert pairs(prepared) == [("p", 0, 1)]
    assert prepared.pairs[0].annotator == "7"


def test_samples_of_two_images_without_a_preference_are_refused(tmp_path: Path) -> None:
    files = {"0.image_a.png": numbered(0), "0.image_b.png": numbered(1), "0.txt": b"caption"}
    prepared = prepare(tar_of(files.items()), tmp_path, policy=Policy(prompt="for all"))
    assert (codes(prepared), prepared.count) == (["metadata_columns"], 0)
    assert "no column that says which is preferred" in prepared.findings[0].message


def test_samples_of_one_image_are_captioned_pictures(tmp_path: Path) -> None:
    """As img2dataset writes them."""
    files = {"000.jpg": numbered(0), "000.txt": b"a", "000.json": b'{"caption": "a", "url": "https://x/y.jpg"}'}
    assert pairs(prepare(tar_of(files.items()), tmp_path)) == [("a", 0, None)]


def test_an_incomplete_sample_is_named(tmp_path: Path) -> None:
    files = {"0.chosen.png": numbered(0), "0.rejected.png": numbered(1), "0.txt": b"a", "1.chosen.png": numbered(2)}
    prepared = prepare(tar_of(files.items()), tmp_path)
    finding = only(one for one in prepared.findings if one.severity == "error")
    assert (finding.code, finding.row) == ("row_invalid", 2)
    assert "sample 1 has no prompt, rejected" in finding.message


KINDS = {
    "float16": pa.array(np.array([0.9, 0.1], np.float16)),
    "decimal": pa.array([1, 0], pa.decimal128(3, 1)),
    "bool": pa.array([True, False]),
    "text": pa.array(["1.0", "0"]),
    "view": pa.array(["1", "0"], pa.string_view()),
    "int8": pa.array([1, 0], pa.int8()),
    "categories": pa.array(["1", "0"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_type_that_arrow_has_for_them(kind: str, tmp_path: Path) -> None:
    labels = KINDS[kind]
    images = [pa.array([numbered(at), numbered(at + 2)], pa.binary_view()) for at in (0, 1)]
    table = pa.table(
        {
            "caption": pa.array(["a", "b"], pa.large_string()).dictionary_encode(),
            "jpg_0": images[0], "jpg_1": images[1],
            "label_0": labels, "label_1": pa.concat_arrays([labels[1:], labels[:1]]),
            "user_id": pa.array([7, 7], pa.decimal128(3, 0)),
        }
    )  # fmt: skip
    prepared = prepare(parquet(table), tmp_path)
    assert pairs(prepared) == [("a", 0, 1), ("b", 3, 2)]
    assert [pair.annotator for pair in prepared.pairs] == ["7", "7"]


@pytest.mark.parametrize("kind", [pa.list_(pa.uint8()), pa.large_binary(), pa.binary_view()])
def test_images_of_every_type_of_bytes(kind: pa.DataType, tmp_path: Path) -> None:
    of = list if pa.types.is_list(kind) else bytes
    columns = {name: pa.array([of(numbered(at))], kind) for at, name in enumerate(("chosen", "rejected"))}
    assert pairs(prepare(parquet(pa.table({"prompt": ["p"], **columns})), tmp_path)) == [("p", 0, 1)]


def test_parquet_of_addresses_is_refused_once(tmp_path: Path) -> None:
    """As yuvalkirstain/pickapic_v1_no_images has only addresses."""
    row = {"caption": "a", "image_0_url": "https://x/0", "image_1_url": "https://x/1", "label_0": 1.0, "label_1": 0.0}
    table = pa.Table.from_pylist([row] * 3)
    finding = only(prepare(parquet(table), tmp_path).findings)
    assert "column 'image_0_url' that holds paths or addresses of images" in finding.message

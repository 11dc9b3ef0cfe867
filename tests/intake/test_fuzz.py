"""Whatever is uploaded, intake answers with pairs or named findings and writes inside its work directory only."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intake import PreparedUpload
from intake.errors import ImageError
from intake.formats.layouts import LAYOUTS
from intake.images import normalise as images_module
from intake.images.normalise import normalise
from intake.limits import Limits
from intake.policy import Policy
from tests.intake.build import ROW, good_files, png, prepare, tar_of, zip_of
from tests.intake.formats.test_formats import annotation, label_studio, pick_a_pic, studio_archive
from tests.intake.images.test_normalise import WHOLE
from trainer.run_directory.images import decode

pytestmark = pytest.mark.unit

bounded = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

PATH_PARTS = ["..", ".", "", "images", "a.png", "A.PNG", "metadata.jsonl", "metadata.csv", "C:", "\\", "\0", "e\u0301"]
paths = st.lists(st.sampled_from(PATH_PARTS) | st.text(max_size=6), min_size=1, max_size=4).map("/".join)
names = paths.filter(lambda name: name.encode("utf-8", "replace").decode() == name)
zip_names = names.map(lambda name: name.replace("\0", "0") or "0")  # zipfile cuts names at a NUL
contents = st.sampled_from([png(), png((0, 0, 9)), b"", b"text", png()[:30]]) | st.binary(max_size=40)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | paths | st.just(["nested"])
rows = st.dictionaries(st.sampled_from([*ROW, "split", "weight", "annotator", "seed", "x\0y"]), values).map(
    lambda changed: ROW | changed
)
lines = rows.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=30)
metadata = st.lists(lines, max_size=5).map(b"\n".join)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])


policies = st.builds(
    Policy,
    ties=st.sampled_from(["drop", "both", "error"]),
    invalid_rows=st.sampled_from(["refuse", "drop"]),
    strict=st.booleans(),
    prompt=st.none() | st.text(max_size=8),
)


def check(archive: bytes, policy: Policy | None = None) -> PreparedUpload:
    """Prepare in a fresh folder; every invariant of the outcome holds."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "bystander").write_bytes(b"untouched")
        prepared = prepare(archive, folder, policy=policy)
        images = folder / "work" / "images"
        assert {path.name for path in folder.iterdir()} == {"bystander", "upload", "work"}
        assert (folder / "bystander").read_bytes() == b"untouched"
        written = {path for path in folder.rglob("*") if path.is_file() and "work" in path.parts}
        assert written == {*prepared.images.values(), folder / "work" / "pairs.jsonl"}
        pairs = prepared.pairs
        assert all(path == images / sha256 for sha256, path in prepared.images.items())
    assert pairs or prepared.findings
    for finding in prepared.findings:
        assert finding.message.isprintable()
        assert finding.severity == "error" or not (policy and policy.strict)
    for pair in pairs:
        assert {pair.chosen, pair.rejected} - {None} <= prepared.images.keys()
        assert "\0" not in pair.prompt
        pair.prompt.encode("utf-8")
    return prepared


@bounded
@given(files=st.dictionaries(zip_names, contents, max_size=5), data=metadata, policy=policies)
def test_any_names_and_metadata_in_a_zip(files: Mapping[str, bytes], data: bytes, policy: Policy) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name")
        check(zip_of([*files.items(), *(good_files() | {"metadata.jsonl": data}).items()]), policy)


FOLDERS = ["chosen", "w", "good", "Chosen", "set/chosen", "rejected", "l", "bad", "set/rejected", "fox_rejected"]
FOLDERS += ["masks", "reg", "captions", "test", "train", "10_fox", "other", ".hidden", ""]
STEMS = [
    "a",
    "b",
    "A",
    "e\u0301",
    "\u00e9",
    "a.b",
    " ",
    ".a",
    "metadata",
    "a_chosen",
    "a-rejected",
    "a_mask",
    "caption",
]
ENDINGS = [".png", ".jpg", ".txt", ".caption", ".PNG", "", ".jpg_0", ".jpg_1", ".label_0.txt", ".json", ".png.txt"]
in_folders = st.tuples(*(st.sampled_from(parts) for parts in (FOLDERS, STEMS, ENDINGS))).map(
    lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}".lstrip("/")
)


@bounded
@given(files=st.dictionaries(in_folders.filter(bool), contents, max_size=10), policy=policies)
def test_any_files_in_two_folders(files: Mapping[str, bytes], policy: Policy) -> None:
    check(zip_of(files.items()), policy)


@bounded
@given(files=st.dictionaries(names, st.tuples(kinds, contents), max_size=5), data=metadata)
def test_any_names_kinds_and_metadata_in_a_tar(files: Mapping[str, tuple[bytes, bytes]], data: bytes) -> None:
    entries: list[tuple[str | tarfile.TarInfo, bytes]] = [("metadata.csv", data), ("images/a.png", png())]
    for name, (kind, content) in files.items():
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "../../bystander"
        entries.append((entry, content if kind == tarfile.REGTYPE else b""))
    check(tar_of(entries))


ARCHIVES = [
    zip_of(good_files().items()),
    zip_of(good_files().items(), zipfile.ZIP_STORED),
    tar_of(good_files().items()),
    tar_of(good_files().items(), format_=tarfile.GNU_FORMAT),
    tar_of([("d" * 120 + "/a.png", png()), *good_files().items()]),
]
edits = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6
)


def edited(data: bytes, changes: list[tuple[float, bytes]]) -> bytes:
    result = bytearray(data)
    for place, replacement in changes:
        at = int(place * len(data))
        result[at : at + len(replacement)] = replacement
    return bytes(result)


@bounded
@given(archive=st.sampled_from(ARCHIVES), changes=edits)
def test_any_damage_to_an_archive(archive: bytes, changes: list[tuple[float, bytes]]) -> None:
    check(edited(archive, changes))


TABLES = [
    pick_a_pic({}, {"caption": "a hen"}, group=1),
    pa.Codec("zstd").compress(tar_of(good_files().items()), asbytes=True),
    gzip.compress(tar_of(good_files().items())),
    studio_archive(label_studio(annotation("left"))),
]


@bounded
@given(upload=st.sampled_from(TABLES), changes=edits)
def test_any_damage_to_a_parquet_file_a_packed_tar_or_an_export(
    upload: bytes, changes: list[tuple[float, bytes]]
) -> None:
    check(edited(upload, changes))


NAMES = [
    "data",
    "annotations",
    "result",
    "value",
    "selected",
    "to_name",
    "type",
    "prompt",
    "image1",
    "pref",
    "prefer_0",
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(["left", "a.png", "image1,image2", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
TABLE_COLUMNS = [layout.columns for layout in LAYOUTS]


@bounded
@given(columns=st.sampled_from(TABLE_COLUMNS), data=st.data())
def test_any_values_in_any_formats_columns(columns: frozenset[str], data: st.DataObject) -> None:
    items = [{name: data.draw(json_values) for name in sorted(columns)} for _ in range(2)]
    check(zip_of([("export.json", json.dumps(items).encode()), ("a.png", png()), ("a.txt", b"caption")]))


@bounded
@given(
    columns=st.sampled_from(TABLE_COLUMNS),
    cells=st.lists(
        st.none() | st.integers() | st.floats() | st.binary(max_size=8) | st.just(png()), min_size=6, max_size=6
    ),
)
def test_any_cells_in_parquet(columns: frozenset[str], cells: list[object]) -> None:
    file = io.BytesIO()
    table = {name: [cell] for name, cell in zip(sorted(columns), itertools.cycle(cells), strict=False)}
    with contextlib.suppress(OverflowError, pa.ArrowInvalid):  # an integer that no column of Arrow holds
        pq.write_table(pa.table(table), file)
        check(file.getvalue())


def same_pixels(kept: bytes, original: bytes) -> bool:
    """What training will see of the kept file is what a full re-encoding would have shown it."""
    with patch.object(images_module, "bare", lambda *_: None):
        encoded_anew = normalise(original, Limits()).data
    return decode(kept).tobytes() == decode(encoded_anew).tobytes()


@bounded
@given(data=st.sampled_from(list(WHOLE.values())), changes=edits)
def test_any_damage_to_an_image(data: bytes, changes: list[tuple[float, bytes]]) -> None:
    with contextlib.suppress(ImageError):
        damaged = edited(data, changes)
        result = normalise(damaged, Limits(image_pixels=10_000))
        assert 0 < result.width * result.height <= 10_000
        assert same_pixels(result.data, damaged)

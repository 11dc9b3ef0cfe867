from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.emoji import openmoji, pairs
from intake import prepare_upload

pytestmark = pytest.mark.unit

ALIKE = {"sake bottle and cup", "swan", "takeout box", "zebra face"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.zip"
    pairs.write_archive(path)
    return path


def test_the_bundled_archive_passes_intake_without_findings(archive: Path, tmp_path: Path) -> None:
    prepared = prepare_upload(archive, tmp_path)
    assert prepared.findings == ()
    assert prepared.format == "archive/metadata.jsonl"
    assert len(prepared.pairs) == len(openmoji.catalogue()) - len(ALIKE)
    assert len(prepared.pairs) >= 250


def test_its_splits_share_no_prompt_and_no_image(archive: Path, tmp_path: Path) -> None:
    prepared = prepare_upload(archive, tmp_path)
    training = [pair for pair in prepared.pairs if pair.split == "train"]
    validation = [pair for pair in prepared.pairs if pair.split == "validation"]
    assert len(training) + len(validation) == len(prepared.pairs)
    assert len(validation) >= 25
    assert not {pair.prompt for pair in training} & {pair.prompt for pair in validation}
    assert not {pair.chosen for pair in training} & {pair.chosen for pair in validation}


def test_chosen_is_line_art_and_rejected_is_in_colour(archive: Path, tmp_path: Path) -> None:
    prepared = prepare_upload(archive, tmp_path)

    def saturation(sha256: str | None) -> float:
        assert sha256 is not None
        with Image.open(prepared.images[sha256]) as image:
            assert image.size == (64, 64)
            return float(np.asarray(image.convert("HSV"))[:, :, 1].mean())

    chosen = np.mean([saturation(pair.chosen) for pair in prepared.pairs])
    rejected = np.mean([saturation(pair.rejected) for pair in prepared.pairs])
    assert chosen < rejected / 4


def test_emoji_whose_renderings_hardly_differ_are_left_out(archive: Path, tmp_path: Path) -> None:
    prompts = {pair.prompt for pair in prepare_upload(archive, tmp_path).pairs}
    left_out = {emoji.name for emoji in openmoji.catalogue() if emoji.caption not in prompts}
    assert left_out == ALIKE


def test_difference_is_the_mean_over_all_channels() -> None:
    black = Image.new("RGB", (2, 1), (0, 0, 0))
    other = Image.new("RGB", (2, 1), (0, 0, 0))
    other.putpixel((0, 0), (255, 30, 15))
    assert pairs.difference(black, other) == 50.0
    assert pairs.difference(other, black) == 50.0


def test_the_archive_is_the_same_bytes_each_time(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    pairs.write_archive(again)
    assert again.read_bytes() == archive.read_bytes()


def test_licence_and_attribution_travel_with_the_images(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for name in ("README.txt", "LICENSE.txt"):
            text = opened.read(name).decode()
            assert "OpenMoji" in text
            assert "CC BY-SA 4.0" in text


def test_the_command_writes_the_archive_and_counts_the_pairs(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "out.zip"
    root = Path(pairs.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "demo", "pairs", str(out)], cwd=root, capture_output=True, text=True, check=True
    )
    assert zipfile.is_zipfile(io.BytesIO(out.read_bytes()))
    assert out.read_bytes() == archive.read_bytes()
    assert "258 pairs" in done.stdout
    assert list(out.parent.iterdir()) == [out]

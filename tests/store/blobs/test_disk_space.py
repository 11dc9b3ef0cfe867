"""Which directories a process watches for free space."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from store.blobs import disk_space
from store.settings import Settings

pytestmark = pytest.mark.unit


def test_the_api_and_a_worker_watch_their_own_directory_and_that_of_local_blobs(tmp_path: Path) -> None:
    local = Settings(home=tmp_path / "home", blob_url=f"file://{tmp_path}/blobs")
    assert disk_space.of_the_api(local) == {"uploads": tmp_path / "home/uploads", "blobs": tmp_path / "blobs"}
    assert disk_space.of_a_worker(local) == {"work": tmp_path / "home/work", "blobs": tmp_path / "blobs"}


def test_an_object_store_is_no_directory_to_watch(tmp_path: Path) -> None:
    remote = Settings(home=tmp_path, blob_url="s3://bucket/prefix")
    assert set(disk_space.of_the_api(remote)) == {"uploads"}
    assert set(disk_space.of_a_worker(remote)) == {"work"}


def test_only_a_directory_with_less_than_the_least_is_short(tmp_path: Path) -> None:
    watched = {"work": tmp_path / "not" / "made" / "yet"}
    size = shutil.disk_usage(tmp_path).total
    assert 0 < disk_space.free(watched)["work"] <= size
    assert disk_space.short(Settings(min_free_bytes=0), watched) == {}
    assert set(disk_space.short(Settings(min_free_bytes=size + 1), watched)) == {"work"}

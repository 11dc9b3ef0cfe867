from __future__ import annotations

import pytest

from trainer.spec.buckets import Bucket, buckets, centre_crop, shared_bucket

pytestmark = pytest.mark.unit


def test_buckets_of_emoji_xl_fit_the_native_area_in_multiples_of_16() -> None:
    assert buckets(64, 16) == [
        Bucket(32, 128),
        Bucket(48, 80),
        Bucket(64, 64),
        Bucket(80, 48),
        Bucket(128, 32),
    ]


def test_buckets_of_sdxl_never_exceed_its_area_or_a_ratio_of_4() -> None:
    sizes = buckets(1024, 64)
    assert {Bucket(1024, 1024), Bucket(832, 1216), Bucket(1216, 832), Bucket(512, 2048)} <= set(sizes)
    assert all(b.width * b.height <= 1024**2 and b.width % 64 == b.height % 64 == 0 for b in sizes)


def test_buckets_keep_within_the_largest_side() -> None:
    sizes = buckets(1024, 16, largest_side=1536)
    assert {Bucket(1024, 1024), Bucket(688, 1520), Bucket(1520, 688)} <= set(sizes)
    assert all(max(b.width, b.height) <= 1536 for b in sizes)


def test_a_pair_of_unlike_images_shares_the_bucket_that_cuts_least_from_both() -> None:
    # Log ratios 0 and log 4: every ratio between them cuts the same in total; the largest area wins, 64 x 64.
    assert shared_bucket([(64, 64), (128, 32)], buckets(64, 16)) == Bucket(64, 64)
    assert shared_bucket([(300, 200), (310, 200)], buckets(64, 16)) == Bucket(80, 48)


def test_a_crop_has_the_buckets_aspect_ratio_and_is_centred() -> None:
    crop = centre_crop((200, 100), Bucket(64, 64))
    assert crop.box == (50.0, 0.0, 150.0, 100.0)
    assert crop.corner == (32, 0)  # scaled by 0.64, the image is 128 x 64


def test_size_conditioning_is_original_corner_target_each_y_before_x() -> None:
    assert centre_crop((200, 100), Bucket(64, 64)).size_ids == (100, 200, 0, 32, 64, 64)


@pytest.mark.parametrize("size", [(1, 1), (37, 999), (999, 37), (64, 64), (63, 65)])
def test_no_crop_leaves_the_image_or_stretches_it(size: tuple[int, int]) -> None:
    for bucket in buckets(64, 16):
        left, top, right, bottom = centre_crop(size, bucket).box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert (right - left) / (bottom - top) == pytest.approx(bucket.width / bucket.height)


def test_a_crop_reports_whether_it_is_enlarged_and_how_much_it_leaves_out() -> None:
    enlarged, shrunk, whole = (centre_crop(size, Bucket(64, 64)) for size in ((40, 30), (200, 100), (64, 64)))
    assert [crop.is_upscaled for crop in (enlarged, shrunk, whole)] == [True, False, False]
    assert [crop.left_out for crop in (enlarged, shrunk, whole)] == pytest.approx([0.25, 0.5, 0.0])

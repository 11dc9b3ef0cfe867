"""What a run asks the encoders for: captions, mirrors, and the images that are missing."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.trainer.data.test_encoding import Mean
from tests.trainer.evaluation.test_measure_mismatch import Painter
from trainer.cache.cache import Cache
from trainer.data.encoding import CachingEncoder, EncodedPair, new_encoder
from trainer.data.pairs import (
    DataRequirements,
    DatasetFiles,
    EncodedDataset,
    all_prompts,
    captions,
    dataset_files_of,
    encode_dataset,
    new_batch_sampler,
    plan_encoding,
    with_mean_weight_one,
)
from trainer.run_directory.images import decode
from trainer.run_directory.run import ImageFile, PairFiles, Run, image_file
from trainer.runtime.distributed import SINGLE_PROCESS
from trainer.runtime.signals import StopRequest
from trainer.sampling.missing_images import find_missing_images, with_sampled_images
from trainer.spec.buckets import Bucket
from trainer.spec.resolved import resolve
from trainer.spec.run import RunSpec

pytestmark = pytest.mark.unit

BOTH = DataRequirements(rejected=True)
INSTANCE = DataRequirements(rejected=False, instance_prompt="a photo of sks", class_prompt="a photo", class_images=3)


def pair(name: str, *, has_rejected: bool = True, width: int = 16) -> PairFiles:
    chosen, rejected = (ImageFile(Path(f"{name}-{side}"), f"{name}-{side}", (width, 16)) for side in ("w", "l"))
    return PairFiles(name, f"prompt of {name}", chosen, rejected if has_rejected else None)


def run(training: list[PairFiles], held_out: list[PairFiles], **options: Any) -> Run:
    base = {"name": "b", "family": "sdxl", "source": "b"}
    spec = RunSpec.model_validate({"base": base, "method": {"type": "mapo"}, "seed": 4, **options})
    resolved = resolve(spec.method, len(training))
    return Run(Path(), spec, resolved, tuple(training), tuple(held_out), "data", "d", "r")


def encoder(folder: Path) -> CachingEncoder:
    return new_encoder(Mean(16), Cache(folder), "auto")


def test_weights_are_relative_to_their_mean_over_the_dataset() -> None:
    weighted = [replace(pair(name), weight=weight) for name, weight in (("a", 1.0), ("b", 3.0), ("c", 5.0))]
    assert [one.weight for one in with_mean_weight_one(weighted)] == pytest.approx([1 / 3, 1.0, 5 / 3])
    assert [one.weight for one in with_mean_weight_one([replace(one, weight=0.1) for one in weighted])] == [1.0] * 3
    assert with_mean_weight_one([]) == []


def test_training_and_held_out_pairs_have_weights_of_their_own(tmp_path: Path) -> None:
    training = [replace(pair("a"), weight=1.0), replace(pair("b"), weight=3.0)]
    held_out = [replace(pair("c"), weight=2.0), replace(pair("d"), weight=8.0)]
    of = run(training, held_out)
    planned = plan_encoding(encoder(tmp_path), dataset_files_of(of), of, BOTH)
    assert {one.id: one.weight for one in planned.training} == {"a": 0.5, "b": 1.5}
    assert planned.held_out_weights == pytest.approx({"c": 0.4, "d": 1.6})


def test_captions_are_the_templates_with_the_pairs_prompt_or_the_instances() -> None:
    of = run([pair("a")], [], data={"caption_templates": ["{prompt}", "art: {prompt}, {prompt}"]})
    assert captions(pair("a"), of, BOTH) == ["prompt of a", "art: prompt of a, prompt of a"]
    assert captions(pair("a"), of, INSTANCE) == ["a photo of sks", "art: a photo of sks, a photo of sks"]


def test_all_prompts_of_a_run_are_encoded_the_empty_one_too() -> None:
    of = run([pair("a")], [pair("b")], sampling={"prompts": ["a hat"]})
    assert all_prompts(dataset_files_of(of), of, BOTH) == ["", "a hat", "prompt of a", "prompt of b"]
    assert all_prompts(dataset_files_of(of), of, INSTANCE) == ["", "a hat", "a photo", "a photo of sks"]


def few_steps(training: list[PairFiles], held_out: list[PairFiles], **hyperparameters: int) -> Run:
    method = {"type": "mapo", "mapo": {"hyperparameters": hyperparameters}}
    return run(training, held_out, method=method)


def picture(folder: Path, name: str, *, has_rejected: bool = True) -> PairFiles:
    """With files: a wide one for every third name."""
    files = []
    for side in ("w", "l") if has_rejected else ("w",):
        path = folder / f"{name}-{side}.png"
        size = (48, 16) if ord(name) % 3 == 0 else (16, 16)
        Image.new("RGB", size, (ord(name), ord(side), 0)).save(path)
        files.append(image_file(path))
    return PairFiles(name, f"prompt of {name}", files[0], files[1] if has_rejected else None)


def encode(of: Run, files: DatasetFiles, planner: CachingEncoder) -> EncodedDataset:
    cpu, stop = torch.device("cpu"), StopRequest()
    return encode_dataset(planner, files, of, BOTH, device=cpu, stop=stop, progress=lambda *_: None)


@pytest.mark.parametrize("steps", [1, 3, 4, 9])
def test_only_what_the_steps_and_the_evaluations_read_is_encoded(tmp_path: Path, steps: int) -> None:
    training, held_out = [picture(tmp_path, name) for name in "abcdefgh"], [picture(tmp_path, "x")]
    of, planner = few_steps(training, held_out, max_steps=steps, batch_size=2), encoder(tmp_path / "cache")
    dataset = encode(of, dataset_files_of(of), planner)
    assert [one.id for one in dataset.training] == list("abcdefgh")
    order = islice(new_batch_sampler(dataset.training, of, 1).steps(1), steps)
    taken = {pair.id for step in order for group in step for pair in group}
    assert {one.id for one in dataset.visited} == taken
    assert len(taken) == min(2 * steps, 8)
    needed = {key for one in (*dataset.visited, *dataset.held_out) for key in keys_of(one)} | {planner.prompt_key("")}
    assert {path.stem for path in (tmp_path / "cache").rglob("*.safetensors")} == needed


def keys_of(one: EncodedPair) -> list[str]:
    return [*one.prompt_keys, *(image.key for image in one.images)]


def test_rejected_images_of_pairs_that_no_step_takes_are_not_sampled_and_the_steps_stay_the_same(
    tmp_path: Path,
) -> None:
    names = "abcdefgh"
    training = [picture(tmp_path, name, has_rejected=False) for name in names]
    of, planner = few_steps(training, [], max_steps=2, batch_size=2), encoder(tmp_path / "cache")
    files = dataset_files_of(of)
    before = plan_encoding(planner, files, of, BOTH)
    visited = {one.id for one in before.visited}
    missing = find_missing_images(files, of, BOTH, planner, visited)
    assert {one.purpose for one in missing} == {f"rejected image of pair {name}" for name in visited}
    assert len(missing) == 4
    colours = {planner.prompt_key(f"prompt of {name}"): "red" for name in names}
    sampled = with_sampled_images(
        files,
        missing,
        replace(of, directory=tmp_path),
        Painter(colours),  # type: ignore[arg-type]
        check=lambda: None,
        progress=lambda *_: None,
        process_group=SINGLE_PROCESS,
    )
    after = encode(of, sampled, planner)
    assert [one.id for one in after.visited] == [one.id for one in before.visited]
    assert [one.bucket for one in after.training] == [one.bucket for one in before.training]
    assert all(len(one.images) == 2 for one in after.visited)
    assert all(planner.cache.has(key) for one in after.visited for key in keys_of(one))


@pytest.mark.parametrize("flip", [True, False])
def test_training_pairs_may_be_mirrored_where_the_spec_says_so_and_held_out_ones_never(
    tmp_path: Path, flip: bool
) -> None:
    of = run([pair("a")], [pair("b")], data={"horizontal_flip": flip})
    planned = plan_encoding(encoder(tmp_path), dataset_files_of(of), of, BOTH)
    assert [image.mirror is not None for image in planned.training[0].images] == [flip, flip]
    assert [image.mirror for image in planned.held_out[0].images] == [None, None]


def test_pairs_are_planned_with_both_images_in_order_under_their_own_captions(tmp_path: Path) -> None:
    of, planner = run([pair("a"), pair("b")], [pair("c")]), encoder(tmp_path)
    planned = plan_encoding(planner, dataset_files_of(of), of, BOTH)
    assert [[image.file.sha256 for image in one.images] for one in planned.training] == [["a-w", "a-l"], ["b-w", "b-l"]]
    assert [one.prompt_keys for one in planned.training] == [
        (planner.prompt_key(f"prompt of {name}"),) for name in "ab"
    ]
    assert [one.id for one in planned.held_out] == ["c"]


def test_class_images_are_planned_under_the_class_prompt_each_in_its_own_bucket(tmp_path: Path) -> None:
    of, planner = run([pair("a")], [pair("b")]), encoder(tmp_path)
    wide = ImageFile(Path("wide"), "wide", (64, 16))
    planned = plan_encoding(planner, DatasetFiles(of.training, of.validation, [wide]), of, INSTANCE)
    assert [image.crop.bucket for image in planned.class_images] == [planner.bucket(wide)] != [planner.native]
    assert planned.class_prompt_key == planner.prompt_key("a photo")


def test_rejected_images_that_nobody_has_are_sampled_from_the_pairs_caption_at_its_size(tmp_path: Path) -> None:
    lonely = [pair("a", has_rejected=False, width=64), pair("b", has_rejected=False)]
    of, planner = run([*lonely, pair("c")], [pair("d", has_rejected=False)]), encoder(tmp_path)
    found = find_missing_images(dataset_files_of(of), of, BOTH, planner, set("abc"))
    assert [one.purpose for one in found] == [f"rejected image of pair {name}" for name in "abd"]
    assert [one.prompt for one in found] == [f"prompt of {name}" for name in "abd"]
    assert [one.prompt_key for one in found] == [planner.prompt_key(one.prompt) for one in found]
    assert [one.size for one in found] == [planner.bucket(lonely[0].chosen), Bucket(16, 16), Bucket(16, 16)]
    assert len({one.seed for one in found}) == 3
    again = find_missing_images(dataset_files_of(of), of, BOTH, planner, set("abc"))
    assert again == found
    other = run([*lonely, pair("c")], [pair("d", has_rejected=False)], seed=5)
    assert not {one.seed for one in find_missing_images(dataset_files_of(other), other, BOTH, planner, set("abc"))} & {
        one.seed for one in found
    }


def test_a_method_of_chosen_images_alone_lacks_rejected_ones_for_validation_only(tmp_path: Path) -> None:
    of = run([pair("a", has_rejected=False)], [pair("b", has_rejected=False)])
    assert [
        one.purpose
        for one in find_missing_images(
            dataset_files_of(of), of, DataRequirements(rejected=False), encoder(tmp_path), {"a"}
        )
    ] == ["rejected image of pair b"]


def test_class_images_are_sampled_from_the_class_prompt_each_from_other_noise(tmp_path: Path) -> None:
    of, planner = run([pair("a")], [pair("b")]), encoder(tmp_path)
    found = find_missing_images(dataset_files_of(of), of, INSTANCE, planner, {"a"})
    assert [one.purpose for one in found] == ["class image 0", "class image 1", "class image 2"]
    assert {(one.prompt, one.prompt_key, one.size) for one in found} == {
        ("a photo", planner.prompt_key("a photo"), planner.native)
    }
    assert len({one.seed for one in found}) == 3


def test_held_out_pairs_are_at_most_as_many_as_were_requested() -> None:
    of = run([pair("a")], [pair(name) for name in "bcdef"], validation={"max_pairs": 2})
    assert len(dataset_files_of(of).held_out) == 2


def test_a_sampled_image_is_the_rejected_one_of_its_own_pair(tmp_path: Path) -> None:
    pairs = [pair("a", has_rejected=False), pair("b"), pair("c", has_rejected=False)]
    planner = encoder(tmp_path / "cache")
    of = replace(run(pairs[:2], pairs[2:]), directory=tmp_path)
    colours = {planner.prompt_key("prompt of a"): "red", planner.prompt_key("prompt of c"): "blue"}
    found = with_sampled_images(
        dataset_files_of(of),
        find_missing_images(dataset_files_of(of), of, BOTH, planner, set("abc")),
        of,
        Painter(colours),  # type: ignore[arg-type]
        check=lambda: None,
        progress=lambda *_: None,
        process_group=SINGLE_PROCESS,
    )
    assert [one.chosen for one in (*found.training, *found.held_out)] == [one.chosen for one in pairs]
    assert found.training[1] == pairs[1]
    drawn = [one.rejected for one in (found.training[0], found.held_out[0])]
    assert [decode(file.path.read_bytes()).getpixel((0, 0)) for file in drawn if file] == [(255, 0, 0), (0, 0, 255)]

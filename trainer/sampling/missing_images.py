"""Sample the images that the dataset lacks from the base, once before training, with recorded seeds.

Rejected images for pairs that have none (arXiv 2406.06424v2, "Unifying T2I fine-tuning as preference alignment"), and
DreamBooth's class images. They are stored in ``drawn/`` under names that follow from all that determines them, so a
resumed run finds the images that exist already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from trainer.data.encoding import CachingEncoder
from trainer.data.noise import keyed_seed
from trainer.data.pairs import DataRequirements, DatasetFiles, captions
from trainer.run_directory.run import PairFiles, Run, image_file
from trainer.runtime.atomic_io import remove_partial_files, write_atomically
from trainer.runtime.distributed import ProcessGroup
from trainer.sampling.sampler import Sampler, images_per_pass, png_bytes
from trainer.spec.buckets import Bucket

FOLDER, MANIFEST = "drawn", "manifest.jsonl"


@dataclass(frozen=True)
class MissingImage:
    """``purpose`` says what for: "rejected image of pair 7", "class image 3"."""

    purpose: str
    prompt: str
    prompt_key: str
    seed: int
    size: Bucket


@dataclass(frozen=True)
class ImageRecord:
    """The metadata of a sampled image, in the PNG and in the manifest."""

    purpose: str
    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    base: str
    base_revision: str

    @property
    def file_name(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32] + ".png"


def record_of(image: MissingImage, sampler: Sampler, base: str, revision: str) -> ImageRecord:
    return ImageRecord(
        image.purpose,
        image.prompt,
        image.seed,
        image.size.width,
        image.size.height,
        sampler.steps,
        sampler.guidance,
        base,
        revision,
    )


def sample_missing_images(
    missing: Sequence[MissingImage],
    sampler: Sampler,
    directory: Path,
    *,
    base: str,
    revision: str,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
    process_group: ProcessGroup,
) -> list[Path]:
    """The images' paths, in order, once all exist. Several processes share the work; the network samples as it is.

    Which images share a forward pass does not depend on the files that exist already: an image is the same whether or
    not the run was interrupted. An existing file stays as it is. The seed's noise is ``torch.randn`` on the CPU.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    records = [record_of(image, sampler, base, revision) for image in missing]
    paths = [folder / record.file_name for record in records]
    groups = [group for group in grouped_by_size(missing) if any(not paths[at].exists() for at in group)]
    if process_group.is_main:
        remove_partial_files(folder)
    process_group.all_gather(None)  # a file that one process writes from here on must not change another's groups
    mine, done = process_group.shard(groups), 0
    for group in mine:
        progress(done, sum(map(len, mine)))
        images = sampler.sample(
            [missing[at].prompt_key for at in group],
            seeds=[missing[at].seed for at in group],
            size=missing[group[0]].size,
            check=check,
        )
        for at, image in zip(group, images, strict=True):
            if not paths[at].exists():
                write_atomically(paths[at], png_bytes(image, asdict(records[at])))
        done += len(group)
    if process_group.is_main:
        lines = [json.dumps({"file": record.file_name, **asdict(record)}) + "\n" for record in records]
        write_atomically(folder / MANIFEST, "".join(lines).encode())
    process_group.all_gather(None)
    return paths


def grouped_by_size(missing: Sequence[MissingImage]) -> list[list[int]]:
    """Indices of the images that share a forward pass: of one size, a few at a time."""
    by_size: dict[Bucket, list[int]] = {}
    for at, image in enumerate(missing):
        by_size.setdefault(image.size, []).append(at)
    return [
        indices[start : start + images_per_pass(size)]
        for size, indices in by_size.items()
        for start in range(0, len(indices), images_per_pass(size))
    ]


def find_missing_images(
    files: DatasetFiles, run: Run, requirements: DataRequirements, encoder: CachingEncoder, visited: Collection[str]
) -> list[MissingImage]:
    """Rejected images that training or evaluation needs, then class images; ``visited`` are ids of training pairs."""
    training = [pair for pair in files.training if pair.id in visited] if requirements.rejected else []
    needed = dict.fromkeys((*training, *files.held_out))
    rejected = [missing_rejected_image(pair, run, requirements, encoder) for pair in needed if pair.rejected is None]
    native = encoder.native
    class_prompt = requirements.class_prompt or ""
    return rejected + [
        MissingImage(
            f"class image {index}",
            class_prompt,
            encoder.prompt_key(class_prompt),
            keyed_seed("class image", run.spec.seed, index),
            native,
        )
        for index in range(requirements.class_images)
    ]


def missing_rejected_image(
    pair: PairFiles, run: Run, requirements: DataRequirements, encoder: CachingEncoder
) -> MissingImage:
    prompt = captions(pair, run, requirements)[0]
    return MissingImage(
        f"rejected image of pair {pair.id}",
        prompt,
        encoder.prompt_key(prompt),
        keyed_seed("rejected image", run.spec.seed, pair.id),
        encoder.bucket(pair.chosen),
    )


def with_sampled_images(
    files: DatasetFiles,
    missing: Sequence[MissingImage],
    run: Run,
    sampler: Sampler,
    *,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
    process_group: ProcessGroup,
) -> DatasetFiles:
    """The dataset with the ``missing`` images, sampled by the network as it is."""
    paths = sample_missing_images(
        missing,
        sampler,
        run.directory,
        base=run.spec.base.name,
        revision=run.spec.base.revision or "",
        check=check,
        progress=progress,
        process_group=process_group,
    )
    sampled = {image.purpose: path for image, path in zip(missing, paths, strict=True)}
    return DatasetFiles(
        [_with_rejected(pair, sampled) for pair in files.training],
        [_with_rejected(pair, sampled) for pair in files.held_out],
        [image_file(path) for purpose, path in sampled.items() if purpose.startswith("class image ")],
    )


def _with_rejected(pair: PairFiles, sampled: dict[str, Path]) -> PairFiles:
    path = sampled.get(f"rejected image of pair {pair.id}")
    return pair if path is None else replace(pair, rejected=image_file(path))

"""Images that a run needs and nobody has: drawn from the base once, before training, with recorded seeds.

Rejected images for pairs that have none (arXiv 2406.06424v2, "Unifying T2I fine-tuning as preference alignment"), and
DreamBooth's class images. They lie in ``drawn/`` under names that follow from all that determines them, so a run that
was killed goes on with what is there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.data.encoding import CachingEncoder
from trainer.data.noise import keyed_seed
from trainer.data.pairs import DataRequirements, DatasetFiles, captions
from trainer.run_directory.run import PairFiles, Run, image_file
from trainer.runtime.atomic_io import remove_partial_files, write_atomically
from trainer.runtime.distributed import ProcessGroup
from trainer.sampling.sampler import Sampler, images_per_pass
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
    """What stands beside each drawn image, in the PNG and in the manifest."""

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


def record_of(commission: MissingImage, sampler: Sampler, base: str, revision: str) -> ImageRecord:
    size = commission.size
    return ImageRecord(
        commission.purpose,
        commission.prompt,
        commission.seed,
        size.width,
        size.height,
        sampler.steps,
        sampler.guidance,
        base,
        revision,
    )


def carry_out(
    commissions: Sequence[MissingImage],
    sampler: Sampler,
    directory: Path,
    *,
    base: str,
    revision: str,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
    process_group: ProcessGroup,
) -> list[Path]:
    """The images' paths, in order, once all are there; several processes share the drawing. The network draws as it is.

    What is drawn together does not depend on what is there already: an image is the same whether or not the run was
    interrupted. One that is there is left as it is. The seed's noise is ``torch.randn`` on the CPU.
    """
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    records = [record_of(one, sampler, base, revision) for one in commissions]
    paths = [folder / record.file_name for record in records]
    groups = grouped_by_size(commissions)
    missing = [group for group in groups if any(not paths[at].exists() for at in group)]
    if process_group.is_main:
        remove_partial_files(folder)
    process_group.all_gather(None)  # what one of them draws now, another must not find
    mine, done = process_group.shard(missing), 0
    for group in mine:
        progress(done, sum(map(len, mine)))
        images = sampler.sample(
            [commissions[at].prompt_key for at in group],
            seeds=[commissions[at].seed for at in group],
            size=commissions[group[0]].size,
            check=check,
        )
        for at, image in zip(group, images, strict=True):
            if not paths[at].exists():
                write_atomically(paths[at], png(image, records[at]))
        done += len(group)
    if process_group.is_main:
        lines = [json.dumps({"file": record.file_name, **asdict(record)}) + "\n" for record in records]
        write_atomically(folder / MANIFEST, "".join(lines).encode())
    process_group.all_gather(None)
    return paths


def grouped_by_size(commissions: Sequence[MissingImage]) -> list[list[int]]:
    """Places of those that are drawn together: of one size, a few at a time."""
    alike: dict[Bucket, list[int]] = {}
    for at, commission in enumerate(commissions):
        alike.setdefault(commission.size, []).append(at)
    return [
        positions[start : start + images_per_pass(size)]
        for size, positions in alike.items()
        for start in range(0, len(positions), images_per_pass(size))
    ]


def png(image: Image.Image, record: ImageRecord) -> bytes:
    info = PngInfo()
    for name, value in asdict(record).items():
        info.add_itxt(f"pairtune.{name}", str(value))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()


def find_missing_images(
    pairs: DatasetFiles, run: Run, requirements: DataRequirements, encoder: CachingEncoder
) -> list[MissingImage]:
    """What is to be drawn: rejected images where they are looked at, then class images."""
    looked_at = (*(pairs.training if requirements.rejected else ()), *pairs.held_out)
    rejected = [
        _rejected(pair, run, requirements, encoder) for pair in dict.fromkeys(looked_at) if pair.rejected is None
    ]
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


def _rejected(pair: PairFiles, run: Run, requirements: DataRequirements, encoder: CachingEncoder) -> MissingImage:
    prompt = captions(pair, run, requirements)[0]
    return MissingImage(
        f"rejected image of pair {pair.id}",
        prompt,
        encoder.prompt_key(prompt),
        keyed_seed("rejected image", run.spec.seed, pair.id),
        encoder.bucket(pair.chosen),
    )


def with_sampled_images(
    pairs: DatasetFiles,
    commissions: Sequence[MissingImage],
    run: Run,
    sampler: Sampler,
    *,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
    process_group: ProcessGroup,
) -> DatasetFiles:
    """With what ``find_missing_images`` named, drawn by the network as it is."""
    paths = carry_out(
        commissions,
        sampler,
        run.directory,
        base=run.spec.base.name,
        revision=run.spec.base.revision or "",
        check=check,
        progress=progress,
        process_group=process_group,
    )
    drawn = {commission.purpose: path for commission, path in zip(commissions, paths, strict=True)}
    return DatasetFiles(
        [_with_rejected(pair, drawn) for pair in pairs.training],
        [_with_rejected(pair, drawn) for pair in pairs.held_out],
        [image_file(path) for purpose, path in drawn.items() if purpose.startswith("class image ")],
    )


def _with_rejected(pair: PairFiles, drawn: dict[str, Path]) -> PairFiles:
    path = drawn.get(f"rejected image of pair {pair.id}")
    return pair if path is None else replace(pair, rejected=image_file(path))

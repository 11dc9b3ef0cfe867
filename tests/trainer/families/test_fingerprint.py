"""What a cached encoding depends on: anything of the base that an encoder reads, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.families.family import Family
from trainer.families.sd import SdFamily
from trainer.families.sd3 import Sd3Family
from trainer.families.sdxl import SdxlFamily
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Adapter, Base

pytestmark = pytest.mark.unit

CLIP = ("tokenizer", "text_encoder")
CLIPS = (*CLIP, "tokenizer_2", "text_encoder_2")
ENCODERS: dict[FamilyName, tuple[str, ...]] = {
    "sd1": (*CLIP, "vae"),
    "sd2": (*CLIP, "vae"),
    "sdxl": (*CLIPS, "vae"),
    "sd3": (*CLIPS, "tokenizer_3", "text_encoder_3", "vae"),
}


def base_in(folder: Path, family: FamilyName) -> Path:
    """Files with the names of a base's; nothing here reads what is in them."""
    for part in (*ENCODERS[family], "unet", "transformer", "scheduler"):
        (folder / part).mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (folder / part / name).write_text(f"{part} {name}")
    (folder / "model_index.json").write_text(json.dumps({"text_encoder_3": ["transformers", "T5EncoderModel"]}))
    return folder


def opened(folder: Path, family: FamilyName, *, revision: str | None = None, **adapter: Any) -> Family:
    base, options = (
        Base(name="b", family=family, source=str(folder), revision=revision),
        Adapter.model_validate(adapter),
    )
    if family == "sd3":
        return Sd3Family(base, folder, {})
    return (SdxlFamily if family == "sdxl" else SdFamily)(base, folder, {}, options)


@pytest.mark.parametrize("family", ENCODERS)
def test_another_file_of_any_encoder_is_another_encoding(tmp_path: Path, family: FamilyName) -> None:
    folder = base_in(tmp_path, family)
    seen = [opened(folder, family).fingerprint]
    for part in ENCODERS[family]:
        for name in ("config.json", "model.safetensors"):
            (folder / part / name).write_text("other")
            seen.append(opened(folder, family).fingerprint)
    assert len({json.dumps(one, sort_keys=True) for one in seen}) == 1 + 2 * len(ENCODERS[family])


@pytest.mark.parametrize("family", ENCODERS)
def test_the_denoiser_and_its_adapter_are_no_part_of_it(tmp_path: Path, family: FamilyName) -> None:
    folder = base_in(tmp_path, family)
    before = opened(folder, family).fingerprint
    for part in ("unet", "transformer", "scheduler"):
        (folder / part / "model.safetensors").write_text("other")
    assert opened(folder, family, rank=2, type="dora").fingerprint == before


@pytest.mark.parametrize("family", ENCODERS)
def test_family_and_revision_are_part_of_it(tmp_path: Path, family: FamilyName) -> None:
    folder = base_in(tmp_path, family)
    plain, other = (opened(folder, family, revision=revision).fingerprint for revision in (None, "abc"))
    assert plain != other
    assert plain["family"] == family


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_learned_word_changes_the_ids_that_are_cached(tmp_path: Path, family: FamilyName) -> None:
    folder = base_in(tmp_path, family)
    word = {"text": "<toy>", "initial": "cat"}
    options: list[dict[str, Any]] = [{}, {"text_encoder": {}}, {"token": word}, {"token": word | {"vectors": 2}}]
    found = {json.dumps(opened(folder, family, **one).fingerprint, sort_keys=True) for one in options}
    assert len(found) == 4


def test_what_the_pipelines_take_for_no_prompt_is_part_of_it(tmp_path: Path) -> None:
    folder = base_in(tmp_path, "sdxl")
    found = []
    for zeros in (True, False):
        (folder / "model_index.json").write_text(json.dumps({"force_zeros_for_empty_prompt": zeros}))
        found.append(opened(folder, "sdxl").fingerprint)
    assert found[0] != found[1]


def test_a_base_without_t5_has_another_encoding_than_one_with_it(tmp_path: Path) -> None:
    folder = base_in(tmp_path, "sd3")
    within = opened(folder, "sd3").fingerprint
    (folder / "model_index.json").write_text(json.dumps({"text_encoder_3": [None, None]}))
    assert opened(folder, "sd3").fingerprint != within

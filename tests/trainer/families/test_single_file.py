"""Bases in one safetensors file: converted once, to the tensors that they were made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from demo.emoji_xl import TEXT_WIDTH
from tests.trainer.families.hub import REVISION, Hub
from tests.trainer.families.original_layout import write_original
from tests.trainer.families.test_hub import hub
from tests.trainer.families.tiny_sd import save_sd1
from tests.trainer.tiny_sdxl import save_base
from trainer.export.metadata import published
from trainer.families import open_family
from trainer.runtime.errors import BadRun
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Base, RunSpec

__all__ = ["hub"]

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
SECOND_WIDTH = TEXT_WIDTH + 16


def save_sdxl(folder: Path) -> Path:
    """With text encoders of two widths, by which diffusers tells them apart."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(save_base(folder / "equal"))
    torch.manual_seed(8)
    second = pipeline.text_encoder_2.config.to_dict() | {"hidden_size": SECOND_WIDTH, "projection_dim": SECOND_WIDTH}
    unet = pipeline.unet.config | {
        "cross_attention_dim": TEXT_WIDTH + SECOND_WIDTH,
        "projection_class_embeddings_input_dim": 6 * 8 + SECOND_WIDTH,
    }
    pipeline.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**second))
    pipeline.unet = UNet2DConditionModel.from_config(unet)
    pipeline.save_pretrained(folder / "base", safe_serialization=True)
    return folder / "base"


SAVE = {"sd1": save_sd1, "sdxl": save_sdxl}


def configuration_of(base: Path, folder: Path) -> Path:
    return Path(shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("family", SAVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_single_file_becomes_the_base_that_it_was_made_from(
    tmp_path: Path, family: FamilyName, dtype: torch.dtype
) -> None:
    original = SAVE[family](tmp_path / "original")
    file = write_original(original, tmp_path / "model.safetensors", dtype)
    base = Base(
        name="one", family=family, source=str(file), config=str(configuration_of(original, tmp_path / "config"))
    )
    opened = open_family(base)
    folder = opened.folder  # type: ignore[attr-defined]
    for component in original.iterdir():
        for path in component.glob("*.safetensors"):
            found, expected = load_file(folder / component.name / path.name), load_file(path)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name].to(dtype)) for name in expected)
    (prompt,) = opened.load_encoders(CPU).encode_prompts(["a cat"])
    assert all(torch.isfinite(tensor).all() for tensor in prompt.values())
    assert opened.load_denoiser(CPU).dtype == torch.float32


def test_a_file_is_converted_once_and_again_when_it_or_its_configuration_changes(tmp_path: Path, home: Path) -> None:
    original = save_sd1(tmp_path / "original")
    file = write_original(original, tmp_path / "model.safetensors")
    config = configuration_of(original, tmp_path / "config")
    base = Base(name="one", family="sd1", source=str(file), config=str(config))
    first = open_family(base).folder  # type: ignore[attr-defined]
    before = (first / "model_index.json").stat().st_mtime_ns
    assert open_family(base).folder == first  # type: ignore[attr-defined]
    assert (first / "model_index.json").stat().st_mtime_ns == before
    write_original(original, file, torch.float16)
    second = open_family(base).folder  # type: ignore[attr-defined]
    scheduler = config / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace('"epsilon"', '"v_prediction"'))
    third = open_family(base).folder  # type: ignore[attr-defined]
    assert len({first, second, third}) == 3
    assert {path.name for path in (home / "pairtune-converted").iterdir()} == {
        "lock",
        *(path.name for path in (first, second, third)),
    }


def broken(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def without_text_encoder(file: Path) -> None:
    save_file({name: one for name, one in load_file(file).items() if not name.startswith("cond_stage")}, file)


def without_a_layer(file: Path) -> None:
    save_file({name: one for name, one in load_file(file).items() if "mlp.fc1" not in name}, file)


def of_other_widths(file: Path) -> None:
    save_file({name: one[:3].contiguous() if one.dim() == 4 else one for name, one in load_file(file).items()}, file)


@pytest.mark.parametrize("damage", [broken, without_text_encoder, without_a_layer, of_other_widths])
def test_a_file_of_another_content_is_refused_by_name(tmp_path: Path, damage: object, home: Path) -> None:
    original = save_sd1(tmp_path / "original")
    file = write_original(original, tmp_path / "model.safetensors")
    damage(file)  # type: ignore[operator]
    config = configuration_of(original, tmp_path / "config")
    with pytest.raises(BadRun, match=r"model\.safetensors") as raised:
        open_family(Base(name="one", family="sd1", source=str(file), config=str(config)))
    assert raised.value.code == "bad_base"
    assert [path.name for path in (home / "pairtune-converted").iterdir()] == ["lock"]


def test_a_configuration_that_is_nowhere_is_named(tmp_path: Path) -> None:
    file = write_original(save_sd1(tmp_path / "original"), tmp_path / "model.safetensors")
    with pytest.raises(BadRun, match=r"base\.config: given .*nowhere") as raised:
        open_family(Base(name="one", family="sd1", source=str(file), config=str(tmp_path / "nowhere")))
    assert raised.value.code == "base_not_found"


def test_a_file_of_a_repository_is_downloaded_alone_and_once(tmp_path: Path, hub: Hub) -> None:
    original = save_sd1(tmp_path / "original")
    file = write_original(original, tmp_path / "model.safetensors")
    hub.files["org/model"] = {"v1/model.safetensors": file.read_bytes(), "README.md": b"no"}
    base = Base(
        name="one",
        family="sd1",
        source="org/model/v1/model.safetensors",
        revision=REVISION,
        config=str(configuration_of(original, tmp_path / "config")),
    )
    reports: list[tuple[int, int]] = []
    first = open_family(base, progress=lambda *of: reports.append(of)).folder  # type: ignore[attr-defined]
    assert open_family(base).folder == first  # type: ignore[attr-defined]
    assert hub.sent == ["v1/model.safetensors"]
    assert reports
    missing = base.model_copy(update={"source": "org/model/v2/model.safetensors"})
    with pytest.raises(BadRun, match="no such file") as raised:
        open_family(missing)
    assert raised.value.code == "base_not_found"


@pytest.mark.parametrize("source", ["model.safetensors", "org/model/one.safetensors"])
def test_what_is_published_names_no_path_of_the_operator(tmp_path: Path, source: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    given = str(tmp_path / source) if source == "model.safetensors" else source
    base = {"name": "one", "family": "sd1", "source": given, "config": str(tmp_path)}
    spec = published(RunSpec.model_validate({"base": base, "method": {"type": "mapo"}, "seed": 1}))
    assert str(tmp_path) not in spec.model_dump_json()
    assert spec.base.source == ("one" if source == "model.safetensors" else source)

"""A base is opened only as the family that it is of, and from safetensors only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.trainer.families.bases import SAVE_BASE
from trainer.families import open_family
from trainer.runtime.errors import BadRun
from trainer.spec.family_facts import FAMILIES, FamilyName
from trainer.spec.run import Base

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: SAVE_BASE[family](tmp_path_factory.mktemp(family)) for family in FAMILIES}


def opened(family: str, folder: Path) -> object:
    return open_family(Base(name="tiny", family=family, source=str(folder)))


def refused(family: str, folder: Path) -> BadRun:
    with pytest.raises(BadRun) as raised:
        opened(family, folder)
    return raised.value


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("files", FAMILIES)
@pytest.mark.parametrize("registered", FAMILIES)
def test_a_base_is_opened_as_its_own_family_only(bases: dict[str, Path], registered: str, files: str) -> None:
    if registered == files:
        opened(registered, bases[files])
        return
    error = refused(registered, bases[files])
    assert error.code == "wrong_family"
    assert str(error).startswith(f"base.family: given '{registered}'; the files in base.source are of {files}:")


def test_architectures_that_no_family_has_are_named(bases: dict[str, Path], tmp_path: Path) -> None:
    flux = shutil.copytree(bases["sd3"], tmp_path / "flux")
    change(flux / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"])
    assert "another kind (FluxTransformer2DModel)" in str(refused("sd3", flux))
    image_conditioned = shutil.copytree(bases["sd1"], tmp_path / "unet")
    change(image_conditioned / "unet" / "config.json", addition_embed_type="image")
    assert "a UNet with image conditioning" in str(refused("sd1", image_conditioned))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_takes_more_than_noisy_latents_is_refused(
    bases: dict[str, Path], family: FamilyName, tmp_path: Path
) -> None:
    network = FAMILIES[family].denoiser
    inpainting = shutil.copytree(bases[family], tmp_path / "base")
    change(inpainting / network / "config.json", in_channels=9)
    error = refused(family, inpainting)
    assert (error.code, error.field_errors[0].field) == ("bad_base", f"base.source {network}/ in_channels")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", ["text_encoder", "vae", "network"])
def test_pickled_weights_are_refused(bases: dict[str, Path], family: FamilyName, part: str, tmp_path: Path) -> None:
    network = FAMILIES[family].denoiser
    base = shutil.copytree(bases[family], tmp_path / "base")
    (weights,) = (base / (network if part == "network" else part)).glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    error = refused(family, base)
    assert error.code == "unsafe_format"
    assert error.field_errors[0].given == weights.with_suffix(".bin").name


def test_t5_has_to_be_there_where_the_base_names_it(bases: dict[str, Path], tmp_path: Path) -> None:
    base = shutil.copytree(bases["sd3"], tmp_path / "base")
    shutil.rmtree(base / "text_encoder_3")
    assert str(refused("sd3", base)).startswith("base.source text_encoder_3/: given no config.json")
    change(base / "model_index.json", text_encoder_3=[None, None])
    opened("sd3", base)


@pytest.mark.parametrize("content", [None, "{", ""])
def test_a_folder_without_readable_index_is_refused(
    bases: dict[str, Path], content: str | None, tmp_path: Path
) -> None:
    base = shutil.copytree(bases["sd1"], tmp_path / "base")
    (base / "model_index.json").unlink()
    if content is not None:
        (base / "model_index.json").write_text(content)
    error = refused("sd1", base)
    assert (error.code, error.field_errors[0].field) == ("bad_base", "base.source base/model_index.json")

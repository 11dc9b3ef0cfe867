"""What the second format's header says of a run, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.export.metadata import kohya_header, published
from trainer.families.family import Prediction
from trainer.spec.family_facts import FamilyName
from trainer.spec.methods import SftMethod
from trainer.spec.run import Base, RunSpec

pytestmark = pytest.mark.unit


def spec(family: FamilyName, **options: Any) -> RunSpec:
    base = {"name": "tiny", "family": family, "source": "someone/tiny"}
    return RunSpec.model_validate({"base": base, "method": {"type": "sft"}, "name": "mine", **options})


@pytest.mark.parametrize(
    ("family", "prediction", "architecture"),
    [
        ("sd1", "epsilon", "stable-diffusion-v1/lora"),
        ("sd2", "epsilon", "stable-diffusion-v2-512/lora"),
        ("sd2", "v_prediction", "stable-diffusion-v2-768-v/lora"),
        ("sdxl", "epsilon", "stable-diffusion-xl-v1-base/lora"),
        ("sd3", "flow", "stable-diffusion-3/lora"),
    ],
)
def test_the_architecture_is_named_as_others_name_it(
    family: FamilyName, prediction: Prediction, architecture: str
) -> None:
    assert kohya_header(spec(family), prediction, 1024)["modelspec.architecture"] == architecture


def test_automatic1111_takes_the_adapter_for_the_version_that_it_is_for() -> None:
    """It looks for ss_base_model_version beginning with "sdxl_", then for ss_v2, and otherwise says SD 1.x."""
    assert kohya_header(spec("sdxl"), "epsilon", 1024)["ss_base_model_version"].startswith("sdxl_")
    assert kohya_header(spec("sd2"), "epsilon", 768)["ss_v2"] == "True"
    assert kohya_header(spec("sd1"), "epsilon", 512)["ss_v2"] == "False"


def test_alpha_is_the_one_that_divided_by_the_rank_gives_the_scale() -> None:
    plain = kohya_header(spec("sdxl", adapter={"rank": 16, "alpha": 8}), "epsilon", 1024)
    stabilised = kohya_header(spec("sdxl", adapter={"type": "rslora", "rank": 16, "alpha": 8}), "epsilon", 1024)
    assert (plain["ss_network_dim"], plain["ss_network_alpha"]) == ("16", "8.0")
    assert stabilised["ss_network_alpha"] == "32.0"


def test_what_sd_scripts_has_no_module_for_names_none() -> None:
    assert kohya_header(spec("sdxl"), "epsilon", 1024)["ss_network_module"] == "networks.lora"
    assert "ss_network_module" not in kohya_header(spec("sdxl", adapter={"type": "dora"}), "epsilon", 1024)
    assert not any(key.startswith("ss_network") for key in kohya_header(spec("sd3"), "flow", 1024))


def test_the_resolution_is_the_one_trained_at() -> None:
    assert kohya_header(spec("sd1"), "epsilon", 512)["modelspec.resolution"] == "512x512"
    assert kohya_header(spec("sd1", data={"resolution": 640}), "epsilon", 512)["modelspec.resolution"] == "640x640"


def test_no_directory_is_published(tmp_path: Any) -> None:
    local = Base(name="tiny", family="sdxl", source=str(tmp_path))
    reported = published(RunSpec(base=local, method=SftMethod(type="sft"), dinov2=str(tmp_path)))
    assert str(tmp_path) not in reported.model_dump_json()
    assert reported.base.source == "tiny"
    assert published(spec("sdxl")).base.source == "someone/tiny"

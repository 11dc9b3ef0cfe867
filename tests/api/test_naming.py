"""What the adapter's file for ComfyUI is called."""

from __future__ import annotations

import pytest

from api.fine_tuning.naming import adapter_name
from trainer.spec.methods import SftMethod
from trainer.spec.run import Base, RunSpec

pytestmark = pytest.mark.unit

SFT = SftMethod(type="sft")
JOB = "ftjob-0198c0de0198c0de0198c0deadbeef12"


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        ("line-art", "line-art"),
        ("Line art, v1.5", "Line-art-v1.5"),
        ("Café Zürich", "Cafe-Zurich"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden.", "hidden"),
        ("x" * 63 + " y", "x" * 63),
        (None, "sft-adbeef12"),
        ("狐", "sft-adbeef12"),
        ("pytorch_lora_weights", "sft-adbeef12"),
        ("learned_embeds", "sft-adbeef12"),
    ],
)
def test_a_suffix_becomes_a_file_name_that_the_trainer_takes(suffix: str | None, name: str) -> None:
    assert adapter_name(suffix, SFT, JOB) == name
    assert RunSpec(method=SFT, base=Base(name="b", family="sdxl", source="b"), name=name).name == name

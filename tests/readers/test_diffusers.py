"""The first file and the bundled base in the versions of diffusers that OTHER_DIFFUSERS names.

In the running one, tests/trainer/export/test_kohya.py loads both files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from demo.pretrain import EXPORT, make_readable_by_transformers_4
from tests.readers.test_weights import as_trained
from tests.trainer.export.test_kohya import trained, write_both
from tests.trainer.families.bases import SAVE_BASE
from trainer.cache.cache import Cache
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Adapter

pytestmark = [pytest.mark.integration, pytest.mark.slow]
OTHERS = [python for python in os.environ.get("OTHER_DIFFUSERS", "").split(":") if python]
MERGE = Path(__file__).with_name("merge.py")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"type": "rslora"},
    "dora": {"type": "dora"},
    "text": {"text_encoder": {"rank": 2}},
    "wide": {"target_modules": ["to_q", "to_out.0", "ff.net.2", "conv1", "conv_in"]},
}
CASES = [(family, kind) for family in SAVE_BASE for kind in KINDS if family != "sd3" or kind not in ("text", "wide")]
IMAGE = """
import sys
import torch
from diffusers import StableDiffusionXLPipeline

pipeline = StableDiffusionXLPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
options = {"height": 64, "width": 64, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
image = pipeline("an emoji of a tomato", generator=torch.Generator().manual_seed(0), **options).images[0]
print("mean", image.mean())
"""


def ran(python: str, *arguments: object) -> str:
    """-P: nothing is imported from the script's folder. The environment finds only what is its own."""
    command = [python, "-P", *map(str, arguments)]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # more threads than free cores spin
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("python", OTHERS)
@pytest.mark.parametrize(("family", "kind"), CASES)
@torch.no_grad()
def test_the_first_file_is_the_trained_adapter(tmp_path: Path, family: FamilyName, kind: str, python: str) -> None:
    base = SAVE_BASE[family](tmp_path / "base")
    adapter = Adapter.model_validate({"rank": 4, "alpha": 6, **KINDS[kind]})
    denoiser, _ = trained(base, family, adapter, Cache(tmp_path / "cache"))
    first, _ = write_both(tmp_path, denoiser, family)
    make_readable_by_transformers_4(base)
    ran(python, MERGE, family, base, first, tmp_path / "merged.safetensors")
    merged = load_file(tmp_path / "merged.safetensors")
    for network, module in denoiser.adapted.items():
        for name, layer in module.named_modules():
            if isinstance(layer, LoraLayer):
                own, wanted = layer.get_base_layer().weight, as_trained(layer)
                read = merged[f"{network}.{name.removeprefix('text_model.')}.weight"]
                assert (read - wanted).norm() <= 1e-5 * (wanted - own).norm(), f"{network}.{name}"


@pytest.mark.skipif(not OTHERS, reason="OTHER_DIFFUSERS names no Python")
def test_the_bundled_base_draws_the_same_everywhere() -> None:
    drawn = [float(ran(python, "-c", IMAGE, EXPORT).split()[-1]) for python in (sys.executable, *OTHERS)]
    assert drawn == pytest.approx([drawn[0]] * len(drawn), abs=1e-5)

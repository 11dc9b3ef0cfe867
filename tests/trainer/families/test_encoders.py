"""Each kind of encoder can be loaded without the other, so that they need not fit a device together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.families.bases import SAVE_BASE
from trainer.families import open_family
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Base

pytestmark = pytest.mark.integration
CPU = torch.device("cpu")


def networks(encoders: Any) -> set[str]:
    """The classes of everything that has weights, in the encoders' fields."""
    waiting, found = list(vars(encoders).values()), set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, nn.Module):
            found.add(type(one).__name__)
        elif isinstance(one, tuple):
            waiting += one
        elif type(one).__module__.startswith("trainer."):
            waiting += vars(one).values()
    return found


@pytest.mark.parametrize("family", SAVE_BASE)
def test_prompts_and_images_are_encoded_with_their_own_networks_alone(tmp_path: Path, family: FamilyName) -> None:
    opened = open_family(Base(name="tiny", family=family, source=str(SAVE_BASE[family](tmp_path))))
    for_images, for_prompts = opened.load_encoders(CPU, prompts=False), opened.load_encoders(CPU, images=False)
    assert networks(for_images) == {"AutoencoderKL"}
    assert networks(for_prompts) == networks(opened.load_encoders(CPU)) - {"AutoencoderKL"} != set()
    mean, _ = for_images.encode_images(torch.zeros(1, 3, 32, 32))
    assert mean.isfinite().all()
    (prompt,) = for_prompts.encode_prompts(["a cat"])
    assert all(tensor.isfinite().all() for tensor in prompt.values())

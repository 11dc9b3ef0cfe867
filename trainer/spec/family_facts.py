"""The table of model families: one row a family, the only place of these facts.

The model card, the estimate, intake's report, the kohya file, the adapters' headers and the docs' tables read them
here; docs/development/add-a-family.md says what else a family needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FamilyName = Literal["sd1", "sd2", "sdxl", "sd3"]

# The longest prompt in tokens, start and end left out: of CLIP's 77 two, of the 256 that diffusers cuts T5's to one.
CLIP_TOKENS, T5_TOKENS = 75, 255


@dataclass(frozen=True)
class Network:
    """Of one image of ``side`` x ``side`` pixels, ``latent`` as the denoiser sees it: ``flops`` of its forward pass and
    ``activations``, the bytes in bf16 that its backward pass needs; ``encoding``, the FLOPs of the autoencoder.
    ``adapter``: parameters of the default LoRA of rank 16."""

    side: int
    latent: int
    parameters: float
    text_parameters: float
    flops: float
    encoding: float
    activations: float
    adapter: float


@dataclass(frozen=True)
class TextEncoder:
    """``component`` and ``tokenizer`` are diffusers' names of the parts, ``kohya`` is the prefix of its layers in a
    kohya file, and ``word`` the key of its rows in the file of a learned word; None where the word itself is the key.
    """

    component: str
    tokenizer: str
    kohya: str
    word: str | None


@dataclass(frozen=True)
class Kohya:
    """How ComfyUI, AUTOMATIC1111 and sd-scripts all read a family's adapter.

    ``version`` is sd-scripts' name of the family (``ss_base_model_version``) and ``is_v2`` its ``ss_v2``; ``original``
    says whether the UNet's layers go by the names of the model's first publication instead of diffusers'.
    """

    version: str
    is_v2: bool
    original: bool


@dataclass(frozen=True)
class FamilyFacts:
    """``network`` was counted on the published base, and ``native_size``, ``size_multiple`` and ``largest_side`` are
    its pixels: the trainer reads those of the base at hand from its files.

    ``pipeline`` is diffusers' class for inference; ``denoiser`` is the folder of the network that is trained, and
    ``denoiser_class`` diffusers' class of it. ``text_encoders`` are those that can be trained; empty where the
    denoiser alone is. ``clip_tokens`` and ``t5_tokens`` are the longest prompts that the text encoders read, None where
    the family has no such encoder. ``guidance`` is the usual scale. ``kohya`` is None where no names are shared: the
    second file keeps diffusers'. ``dpo_beta`` is Diffusion-DPO's for the family.
    """

    title: str
    pipeline: str
    denoiser: Literal["unet", "transformer"]
    denoiser_class: str
    network: Network
    size_multiple: int
    largest_side: int | None
    guidance: float
    text_encoders: tuple[TextEncoder, ...]
    clip_tokens: int | None
    t5_tokens: int | None
    kohya: Kohya | None
    dpo_beta: float

    @property
    def native_size(self) -> int:
        return self.network.side

    @property
    def longest_prompt(self) -> int:
        """Tokens, start and end left out, that at least one text encoder reads."""
        return max(length for length in (self.clip_tokens, self.t5_tokens) if length is not None)


# Networks were counted on the published architectures (Stable Diffusion 1.5, 2.1, XL and 3 medium) by torch's
# FlopCounterMode and saved-tensor hooks, without the attention matrices that no kernel keeps; tests/api/test_network.py
# counts passes again. Diffusion-DPO's authors (arXiv 2311.12908) trained SD 1.5 and SDXL; the others are taken like the
# nearer one.
FAMILIES: Mapping[FamilyName, FamilyFacts] = {
    "sd1": FamilyFacts(
        title="SD 1.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        network=Network(512, 64, 0.860e9, 0.12e9, 0.80e12, 1.12e12, 0.63e9, 3.19e6),
        size_multiple=64,
        largest_side=None,
        guidance=7.5,
        text_encoders=(TextEncoder("text_encoder", "tokenizer", kohya="lora_te", word=None),),
        clip_tokens=CLIP_TOKENS,
        t5_tokens=None,
        kohya=Kohya("sd_v1", is_v2=False, original=False),
        dpo_beta=2000.0,
    ),
    "sd2": FamilyFacts(
        title="SD 2.x",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        network=Network(768, 96, 0.866e9, 0.34e9, 2.15e12, 2.61e12, 1.41e9, 3.32e6),
        size_multiple=64,
        largest_side=None,
        guidance=7.5,
        text_encoders=(TextEncoder("text_encoder", "tokenizer", kohya="lora_te", word=None),),
        clip_tokens=CLIP_TOKENS,
        t5_tokens=None,
        kohya=Kohya("sd_v2", is_v2=True, original=False),
        dpo_beta=2000.0,
    ),
    "sdxl": FamilyFacts(
        title="SDXL",
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        network=Network(1024, 128, 2.567e9, 0.82e9, 6.76e12, 4.88e12, 5.71e9, 23.2e6),
        size_multiple=32,
        largest_side=None,
        guidance=5.0,
        text_encoders=(
            TextEncoder("text_encoder", "tokenizer", kohya="lora_te1", word="clip_l"),
            TextEncoder("text_encoder_2", "tokenizer_2", kohya="lora_te2", word="clip_g"),
        ),
        clip_tokens=CLIP_TOKENS,
        t5_tokens=None,
        kohya=Kohya("sdxl_base_v1-0", is_v2=False, original=True),
        dpo_beta=5000.0,
    ),
    "sd3": FamilyFacts(
        title="SD3",
        pipeline="StableDiffusion3Pipeline",
        denoiser="transformer",
        denoiser_class="SD3Transformer2DModel",
        network=Network(1024, 128, 2.028e9, 5.58e9, 8.44e12, 4.88e12, 3.76e9, 4.72e6),
        size_multiple=16,
        largest_side=1536,
        guidance=7.0,
        text_encoders=(),
        clip_tokens=CLIP_TOKENS,
        t5_tokens=T5_TOKENS,
        kohya=None,
        dpo_beta=5000.0,
    ),
}


def family_facts(name: FamilyName) -> FamilyFacts:
    """Raises LookupError, which names the family and this table, where the row is missing."""
    if name not in FAMILIES:
        raise LookupError(f"the family {name!r} has no row in FAMILIES (trainer/spec/family_facts.py)")
    return FAMILIES[name]

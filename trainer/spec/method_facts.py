"""The table of methods: one row a method, the only place of these facts.

The model card, the estimate, the command line's help, the OpenAPI document and the docs' tables are made from them;
docs/development/add-a-method.md says what else a method needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from trainer.spec.family_facts import FamilyFacts

MethodName = Literal["mapo", "dpo", "sft", "dco", "dreambooth"]


@dataclass(frozen=True)
class MethodFacts:
    """``title`` is the field's name for it; ``paper`` its arXiv id. ``summary`` ends the card's sentence "A LoRA ... by
    ...", ``description`` is the API's, and ``use_when`` the docs' advice.

    ``needs_rejected``: it trains on rejected images; ``needs_reference``: its loss takes the losses of the base;
    ``needs_class_images``: one class image a pair, sampled from the base, is trained on too.
    ``auto_beta`` is what ``beta: "auto"`` becomes for noise prediction, by family; None for a method without beta, or
    whose beta follows from the data (``trainer/recipe.py``). ``loss_hyperparameters`` are the method's own
    hyperparameters that shape its loss, which the card states.
    """

    title: str
    paper: str | None
    summary: str
    description: str
    use_when: str
    needs_rejected: bool
    needs_reference: bool
    needs_class_images: bool
    auto_beta: Callable[[FamilyFacts], float] | None
    loss_hyperparameters: tuple[str, ...]

    @property
    def trained_images(self) -> int:
        """Images a pair that pass the network with gradient, so whose activations stay in memory."""
        return 1 + self.needs_rejected + self.needs_class_images

    @property
    def forward_passes(self) -> int:
        """Of a pair, those of the base included."""
        return self.trained_images * (2 if self.needs_reference else 1)

    @property
    def step_cost(self) -> float:
        """Of a pair, in forward passes of one image: with frozen weights a backward pass costs as much as a forward."""
        return float(self.forward_passes + self.trained_images)

    @property
    def inputs(self) -> str:
        """What the loss takes, in words."""
        images = "both images" if self.needs_rejected else "chosen images"
        base = ", and the base" if self.needs_reference else ""
        class_images = ", and class images sampled from the base" if self.needs_class_images else ""
        return images + base + class_images


METHODS: Mapping[MethodName, MethodFacts] = {
    "mapo": MethodFacts(
        title="MaPO",
        paper="2406.06424",
        summary="margin-aware preference optimization ([MaPO](https://arxiv.org/abs/2406.06424))",
        description="Margin-aware preference optimization, arXiv 2406.06424v2: no reference model.",
        use_when="the default: pairs that differ in style, culture, safety or quality, above all where the base is far "
        "from what you want",
        needs_rejected=True,
        needs_reference=False,
        needs_class_images=False,
        auto_beta=None,
        loss_hyperparameters=("form", "beta"),
    ),
    "dpo": MethodFacts(
        title="Diffusion-DPO",
        paper="2311.12908",
        summary="[Diffusion-DPO](https://arxiv.org/abs/2311.12908), with the base as reference",
        description="Diffusion-DPO, arXiv 2311.12908, with the adapter switched off as reference.",
        use_when="human comparisons of images like the base's own, from which it must not drift",
        needs_rejected=True,
        needs_reference=True,
        needs_class_images=False,
        auto_beta=lambda family: family.dpo_beta,
        loss_hyperparameters=("beta",),
    ),
    "sft": MethodFacts(
        title="SFT",
        paper=None,
        summary="supervised fine-tuning on the chosen images",
        description="Supervised fine-tuning on the chosen images alone.",
        use_when="chosen images that are good enough to imitate as they are; the baseline to beat",
        needs_rejected=False,
        needs_reference=False,
        needs_class_images=False,
        auto_beta=None,
        loss_hyperparameters=(),
    ),
    "dco": MethodFacts(
        title="DCO",
        paper="2402.12004",
        summary="direct consistency optimization ([DCO](https://arxiv.org/abs/2402.12004)) on the chosen images",
        description="Direct consistency optimization, arXiv 2402.12004: the chosen images, held near the base.",
        use_when="as `sft`, with a brake: one subject or style from few images, held near the base",
        needs_rejected=False,
        needs_reference=True,
        needs_class_images=False,
        auto_beta=lambda _: 1000.0,  # the paper's, for SDXL
        loss_hyperparameters=("beta",),
    ),
    "dreambooth": MethodFacts(
        title="DreamBooth",
        paper="2208.12242",
        summary="[DreamBooth](https://arxiv.org/abs/2208.12242) on the chosen images",
        description="DreamBooth, arXiv 2208.12242: a subject from its photos, its class preserved by the base's own "
        "images.",
        use_when="one subject from a few photos, in the way most people know",
        needs_rejected=False,
        needs_reference=False,
        needs_class_images=True,
        auto_beta=None,
        loss_hyperparameters=("prior_weight",),
    ),
}


def method_facts(name: MethodName) -> MethodFacts:
    """Raises LookupError, which names the method and this table, where the row is missing."""
    if name not in METHODS:
        raise LookupError(f"the method {name!r} has no row in METHODS (trainer/spec/method_facts.py)")
    return METHODS[name]


def listed(names: Iterable[str]) -> str:
    """ "mapo, dpo or sft"."""
    *others, last = names
    return f"{', '.join(others)} or {last}"

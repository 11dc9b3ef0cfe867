"""``python -m demo.evaluate_base``: measure emoji-xl, draw its sample sheet, and write its model card.

Three figures: PSNR of the autoencoder's reconstructions, retrieval accuracy of the samples, and style of unseen captions. For retrieval, each
sample is compared with the real colour emoji of all captions as 16 x 16 pixel images (cosine similarity about their
own mean); it counts when the nearest one is the caption's own. Captions that the base never saw have no real emoji: of
their samples the benchmark's judge says whether they are drawn as OpenMoji draws in colour.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from PIL import Image

from demo.emoji import openmoji
from demo.emoji.openmoji import IMAGE_SIZE
from demo.emoji.scorers import LABELS, load_scorers
from demo.pretrain import CURVES, EXPORT, UNET_BATCH, image_tensor, to_model, unseen_keys
from demo.sampling import sample
from demo.shape_retrieval import retrieved_right

STEPS = 25
GUIDANCE = 3.0
SHEET_COLUMNS, SHEET_ROWS = 12, 4
UNSEEN_CAPTIONS = (  # words that it knows, in company that it does not
    "an emoji of a blue tiger face",
    "an emoji of a lemon cake",
    "an emoji of a green fish",
    "an emoji of a bear with a hot dog",
    "an emoji of a mushroom tree",
    "an emoji of a red bird",
    "an emoji of a cat eating bread",
    "an emoji of a tomato face",
    "an emoji of a white elephant",
    "an emoji of a banana pie",
    "an emoji of a rabbit and a carrot",
    "an emoji of a coffee with milk",
)
UNSEEN_SEEDS = 2
CELL = 96


@dataclass(frozen=True)
class Figures:
    """PSNR in dB, means over images; retrieval is a share of ``captions`` samples, one seed each."""

    psnr_colour: float
    psnr_line_art: float
    psnr_unseen_drawings: float
    retrieval_top1: float
    retrieval_top1_pairs_training: float
    retrieval_top1_pairs_held_out: float
    unseen_captions_in_style: float
    captions: int
    sampling_steps: int
    guidance_scale: float
    vae_steps: int
    unet_steps: int
    unet_images: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=EXPORT)
    arguments = parser.parse_args()
    pipeline = StableDiffusionXLPipeline.from_pretrained(arguments.base)
    pipeline.set_progress_bar_config(disable=True)
    figures, samples = measure(pipeline, arguments.base / CURVES)
    unseen = sample_unseen(pipeline)
    figures = replace(figures, unseen_captions_in_style=in_style(unseen))
    sheet(samples, SHEET_ROWS).save(arguments.base / "samples.png")
    sheet(unseen, UNSEEN_SEEDS).save(arguments.base / "samples_unseen.png")
    (arguments.base / "figures.json").write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    (arguments.base / "README.md").write_text(card(figures), encoding="utf-8")
    print(json.dumps(asdict(figures), indent=2))


def measure(pipeline: StableDiffusionXLPipeline, curves: Path) -> tuple[Figures, list[Image.Image]]:
    """Samples every caption of the catalogue once, seed = its index."""
    catalogue = openmoji.catalogue()
    samples = sample(
        pipeline,
        [emoji.caption for emoji in catalogue],
        seeds=range(len(catalogue)),
        size=IMAGE_SIZE,
        steps=STEPS,
        guidance=GUIDANCE,
    )
    right = retrieved_right(samples, [openmoji.render(emoji.key, "color", IMAGE_SIZE) for emoji in catalogue])
    held_out = np.array([emoji.held_out for emoji in catalogue])
    own = image_tensor([emoji.key for emoji in catalogue])
    vae_steps, unet_steps = _steps_done(curves / "vae.jsonl"), _steps_done(curves / "unet.jsonl")
    figures = Figures(
        psnr_colour=_psnr(pipeline.vae, own[::2]),
        psnr_line_art=_psnr(pipeline.vae, own[1::2]),
        psnr_unseen_drawings=_psnr(pipeline.vae, image_tensor(unseen_keys())),
        retrieval_top1=float(right.mean()),
        retrieval_top1_pairs_training=float(right[~held_out].mean()),
        retrieval_top1_pairs_held_out=float(right[held_out].mean()),
        unseen_captions_in_style=float("nan"),
        captions=len(catalogue),
        sampling_steps=STEPS,
        guidance_scale=GUIDANCE,
        vae_steps=vae_steps,
        unet_steps=unet_steps,
        unet_images=unet_steps * UNET_BATCH,
    )
    return figures, samples


def sample_unseen(pipeline: StableDiffusionXLPipeline) -> list[Image.Image]:
    prompts = UNSEEN_CAPTIONS * UNSEEN_SEEDS
    return sample(pipeline, prompts, seeds=range(len(prompts)), size=IMAGE_SIZE, steps=STEPS, guidance=GUIDANCE)


def in_style(images: list[Image.Image]) -> float:
    """Share of the images that the judge takes for sound OpenMoji drawings in colour or, where white, line art."""
    judged = load_scorers().renditions(images).argmax(axis=1)
    return float(np.isin(judged, [LABELS.index("colour"), LABELS.index("line")]).mean())


@torch.no_grad()
def _psnr(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """Mean over images, peak 2 because pixels span [-1, 1]; ``images``: uint8 (images, 3, 64, 64)."""
    values = []
    for part in torch.split(images, 64):
        pixels = to_model(part)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (decoded - pixels).square().mean(dim=(1, 2, 3))))
    return float(torch.cat(values).mean())


def _steps_done(curve: Path) -> int:
    lines = curve.read_text(encoding="utf-8").splitlines()
    return int(json.loads(lines[-1])["step"])


def sheet(samples: list[Image.Image], rows: int) -> Image.Image:
    """Samples in rows of twelve, evenly picked."""
    picked = np.linspace(0, len(samples) - 1, SHEET_COLUMNS * rows).round().astype(int).tolist()
    page = Image.new("RGB", (SHEET_COLUMNS * CELL, rows * CELL), "white")
    for position, index in enumerate(picked):
        cell = samples[index].resize((CELL, CELL), Image.Resampling.LANCZOS)
        page.paste(cell, (position % SHEET_COLUMNS * CELL, position // SHEET_COLUMNS * CELL))
    return page


def card(figures: Figures) -> str:
    return f"""---
license: cc-by-sa-4.0
library_name: diffusers
pipeline_tag: text-to-image
---

# emoji-xl

A Stable Diffusion XL pipeline in miniature: 11M-parameter UNet with `text_time` conditioning, two CLIP text encoders,
a KL autoencoder, SDXL's noise schedule. It draws colour emoji of animals, plants, food and drink at 64 x 64 pixels. It
exists so that pairtune's example, tests and benchmarks can train a real SDXL-family model on two CPU cores; it is
not made for anything else.

![48 samples](samples.png)

```python
from diffusers import StableDiffusionXLPipeline

pipeline = StableDiffusionXLPipeline.from_pretrained("demo/base/emoji-xl")
pipeline("an emoji of a tiger face", height=64, width=64, num_inference_steps={figures.sampling_steps}, guidance_scale={figures.guidance_scale:g})
```

## Data and licence

{openmoji.ATTRIBUTION} The autoencoder saw all of OpenMoji 17 in colour and as line art, but for {len(unseen_keys())} drawings kept to
measure it; UNet and text encoders saw {figures.captions} colour emoji with captions such as "an emoji of a tiger face",
from their Unicode names. The weights are adapted from OpenMoji and carry the same licence, CC BY-SA 4.0.

## Recipe

`python -m demo.pretrain`, from scratch, seeded, fp32 on CPU, published as an exponential moving average (UNet and
autoencoder in fp16).

| part | steps | batch | learning rate | loss |
|---|---|---|---|---|
| autoencoder | {figures.vae_steps:,} | 16 crops of 32 x 32 or 4 whole images | 1.5e-3, cosine | squared error + 1e-6 KL |
| UNet and text encoders | {figures.unet_steps:,} | {UNET_BATCH} | 5e-4, cosine | epsilon, min-SNR weight 5 (arXiv 2303.09556), 10% empty prompts |

The curves are in [training/](training/). The autoencoder's stage was ended at step {figures.vae_steps:,} of a schedule for 8,000, its
learning rate nearly decayed; the UNet's schedule was for 4,000 steps until step 2,250, and for 3,600 from there.

## Figures

Made by `python -m demo.evaluate_base`, one sample a caption, {figures.sampling_steps} Euler steps, guidance {figures.guidance_scale:g}.

| figure | value |
|---|---|
| top-1 retrieval of samples among all {figures.captions} captions | {figures.retrieval_top1:.3f} |
| of these, captions that the example's pairs train on / hold out | {figures.retrieval_top1_pairs_training:.3f} / {figures.retrieval_top1_pairs_held_out:.3f} |
| autoencoder, colour emoji | {figures.psnr_colour:.1f} dB |
| autoencoder, line art | {figures.psnr_line_art:.1f} dB |
| autoencoder, drawings it never saw (both styles) | {figures.psnr_unseen_drawings:.1f} dB |

Retrieval: nearest real emoji by cosine similarity of 16 x 16 pixel images. "Hold out" refers to the preference pairs;
the base saw all {figures.captions} emoji in colour.

Captions that it never saw, made of words that it knows ({", ".join(caption.removeprefix("an emoji of ") for caption in UNSEEN_CAPTIONS)}):

![Samples for captions it never saw](samples_unseen.png)

They look like OpenMoji ({figures.unseen_captions_in_style:.0%} are taken for sound drawings by the benchmark's judge), but show one of the things named, or neither.

## Limits

It knows these {figures.captions} captions and hardly anything between them: it has memorised a small world. Line art, backgrounds and
other styles are outside it, which is what the preference pairs teach.
"""


if __name__ == "__main__":
    main()

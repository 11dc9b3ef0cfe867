"""Train emoji-xl from scratch: first the autoencoder, then UNet and text encoders together.

    python -m demo.pretrain vae  --steps 8000     # these weights: stopped at 7,250, after 32 minutes on two cores
    python -m demo.pretrain unet --steps 3600     # 72 minutes on two cores
    python -m demo.pretrain export                # writes the fp16 pipeline to demo/base/emoji-xl

The committed weights' curves are in ``training/``, and their card says what was changed on the way.
Every stage is seeded, writes its whole state every few minutes to ``var/pretrain/`` and goes on from there when
started again; a larger ``--steps`` continues a finished stage. ``python -m demo.evaluate_base`` measures the result.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from demo import emoji_xl
from demo.emoji import openmoji

STATE = Path("var/pretrain")
EXPORT = Path(__file__).parent / "base" / "emoji-xl"
CURVES = "training"  # next to the weights: step, loss, learning rate, seconds per step, every 50 steps
SEED = 20261123
CROP = openmoji.IMAGE_SIZE // 2
VAE_BATCH = 16
UNET_BATCH = 32
KL_WEIGHT = 1e-6  # as in Stable Diffusion: keeps latents bounded, costs no sharpness
PROMPT_DROPOUT = 0.1  # share of empty prompts, so that classifier-free guidance has an unconditional branch
MIN_SNR_GAMMA = 5.0
EMA_DECAY = 0.999
SAVE_EVERY = 250
UNSEEN_EVERY = 20  # outside the catalogue, every 20th drawing is kept from the autoencoder to measure it on


# ---------------------------------------------------------------------------------------------- one resumable loop


def train(
    stage: str,
    modules: Sequence[nn.Module],
    loss_of: Callable[[Generator], Tensor],
    *,
    steps: int,
    learning_rate: float,
    warmup: int = 200,
) -> None:
    """AdamW with warm-up and cosine decay over ``steps``, an EMA of all weights, and a state file to resume from.

    ``loss_of`` draws its own batch with the generator. The EMA weights are loaded into ``modules`` on return.
    """
    parameters = [p for module in modules for p in module.parameters()]
    ema = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    generator = torch.Generator().manual_seed(SEED)
    path = STATE / f"{stage}.pt"
    step = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        step = int(state["step"])
        for parameter, average, saved, saved_average in zip(
            parameters, ema, state["weights"], state["ema"], strict=True
        ):
            parameter.data.copy_(saved)
            average.copy_(saved_average)
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
    log = (STATE / f"{stage}.jsonl").open("a", encoding="utf-8")
    running, since = 0.0, time.monotonic()
    while step < steps:
        rate = learning_rate * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * _cosine(step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(generator)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(ema, list[Tensor](parameters), 1 - min(EMA_DECAY, (1 + step) / (10 + step)))
        running += float(loss.detach())
        if step % 50 == 0:
            seconds = (time.monotonic() - since) / 50
            log.write(json.dumps({"step": step, "loss": running / 50, "lr": rate, "s_per_step": seconds}) + "\n")
            log.flush()
            running, since = 0.0, time.monotonic()
        if step % SAVE_EVERY == 0 or step == steps:
            _save_atomically(
                {
                    "step": step,
                    "weights": [p.detach() for p in parameters],
                    "ema": ema,
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                },
                path,
            )
    _load_averages(stage, modules)


def _load_averages(stage: str, modules: Sequence[nn.Module]) -> None:
    """Put a stage's EMA weights into its modules and freeze them."""
    parameters = [p for module in modules for p in module.parameters()]
    state = torch.load(STATE / f"{stage}.pt", weights_only=True)
    for parameter, average in zip(parameters, state["ema"], strict=True):
        parameter.data.copy_(average)
    for module in modules:
        module.eval().requires_grad_(False)


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _save_atomically(state: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


# ------------------------------------------------------------------------------------------------------ autoencoder


def train_vae(steps: int) -> None:
    """Learn to reconstruct all of OpenMoji in both styles; half of each batch comes from the catalogue.

    Three batches in four are random crops (cheap), the fourth whole images, whose group statistics differ.
    """
    torch.manual_seed(SEED)
    vae = emoji_xl.new_vae().to(memory_format=torch.channels_last)
    own = image_tensor([emoji.key for emoji in openmoji.catalogue()])
    others = image_tensor(seen_keys())

    def loss_of(generator: Generator) -> Tensor:
        whole = bool(torch.rand((), generator=generator) < 0.25)
        count = VAE_BATCH // 4 if whole else VAE_BATCH
        batch = torch.cat([_pick(own, count // 2, generator), _pick(others, count - count // 2, generator)])
        if not whole:
            batch = _random_crops(batch, CROP, generator)
        pixels = to_model(batch)
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).sum() / len(batch)
        loss: Tensor = F.mse_loss(decoded, pixels) + KL_WEIGHT * kl
        return loss

    train("vae", [vae], loss_of, steps=steps, learning_rate=1.5e-3)


def trained_vae() -> diffusers.AutoencoderKL:
    """The autoencoder as far as it is trained, its scaling factor set so that latents have unit variance."""
    vae = emoji_xl.new_vae().to(memory_format=torch.channels_last)
    _load_averages("vae", [vae])
    mean, _ = _moments(vae, image_tensor([emoji.key for emoji in openmoji.catalogue()]))
    vae.register_to_config(scaling_factor=round(1 / float(mean.std()), 5))
    return vae


def unseen_keys() -> list[str]:
    """Drawings outside the catalogue that the autoencoder never sees in training."""
    return _other_keys()[::UNSEEN_EVERY]


def seen_keys() -> list[str]:
    unseen = set(unseen_keys())
    return [key for key in _other_keys() if key not in unseen]


def _other_keys() -> list[str]:
    own = {emoji.key for emoji in openmoji.catalogue()}
    return [key for key in openmoji.all_svg_keys() if key not in own]


def image_tensor(keys: Sequence[str]) -> Tensor:
    """Both styles of every key: uint8, shape (2 * keys, 3, 64, 64)."""
    styles: tuple[openmoji.Style, ...] = ("color", "line")
    drawn = [openmoji.pixels(openmoji.render(key, style, openmoji.IMAGE_SIZE)) for key in keys for style in styles]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def to_model(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float in [-1, 1], channels last."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _pick(images: Tensor, count: int, generator: Generator) -> Tensor:
    return images[torch.randint(len(images), (count,), generator=generator)]


def _random_crops(images: Tensor, size: int, generator: Generator) -> Tensor:
    corners = torch.randint(images.shape[-1] - size + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)])


# ------------------------------------------------------------------------------------------- UNet and text encoders


def train_unet(steps: int) -> diffusers.StableDiffusionXLPipeline:
    """Learn the catalogue's colour emoji from their captions: epsilon prediction on SDXL's noise schedule."""
    torch.manual_seed(SEED)
    vae = trained_vae()
    catalogue = openmoji.catalogue()
    tokenizer = emoji_xl.new_tokenizer(emoji.caption for emoji in catalogue)
    text_encoders = emoji_xl.new_text_encoders(tokenizer)
    unet = emoji_xl.new_unet().to(memory_format=torch.channels_last)
    moments = _moments(vae, image_tensor([emoji.key for emoji in catalogue])[::2])  # every other image is line art
    tokens = _tokenize(tokenizer, [emoji.caption for emoji in catalogue])
    empty = _tokenize(tokenizer, [""])
    alphas = emoji_xl.new_scheduler().alphas_cumprod
    scaling: float = vae.config.scaling_factor

    def loss_of(generator: Generator) -> Tensor:
        chosen = torch.randint(len(tokens), (UNET_BATCH,), generator=generator)
        mean, std = moments[0][chosen], moments[1][chosen]
        latents = (mean + std * torch.randn(mean.shape, generator=generator)) * scaling
        noise = torch.randn(mean.shape, generator=generator)
        timesteps = torch.randint(len(alphas), (UNET_BATCH,), generator=generator)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        dropped = torch.rand(UNET_BATCH, 1, generator=generator) < PROMPT_DROPOUT
        hidden, pooled = encode_text(text_encoders, torch.where(dropped, empty, tokens[chosen]))
        conditions = {"text_embeds": pooled, "time_ids": _SIZE_CONDITION.expand(UNET_BATCH, 6)}
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        predicted = unet(noisy, timesteps, hidden, added_cond_kwargs=conditions).sample
        return _min_snr_loss(predicted, noise, alpha)

    train("unet", [unet, *text_encoders], loss_of, steps=steps, learning_rate=5e-4)
    return emoji_xl.assemble(vae, unet, text_encoders, tokenizer)


# SDXL's micro-conditioning: original height and width, crop top and left, target height and width.
_SIZE_CONDITION = torch.tensor([[openmoji.IMAGE_SIZE, openmoji.IMAGE_SIZE, 0, 0] + [openmoji.IMAGE_SIZE] * 2]).float()


def _min_snr_loss(predicted: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Epsilon loss weighted by min(SNR, 5) / SNR (arXiv 2303.09556): fewer steps until shapes are right.

    ``predicted`` and ``noise``: (batch, 4, 16, 16); ``alpha``: (batch, 1, 1, 1). Returns the batch mean.
    """
    snr = (alpha / (1 - alpha)).flatten()
    per_image = (predicted - noise).square().mean(dim=(1, 2, 3))  # (batch,)
    return (per_image * snr.clamp(max=MIN_SNR_GAMMA) / snr).mean()


def encode_text(
    text_encoders: tuple[transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection], tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Token ids (batch, 77) to what SDXL conditions on: hidden states (batch, 77, 128) and pooled text (batch, 64)."""
    first = text_encoders[0](tokens, output_hidden_states=True)
    second = text_encoders[1](tokens, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def _tokenize(tokenizer: transformers.CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    ids: Tensor = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids


@torch.no_grad()
def _moments(vae: diffusers.AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation, unscaled: two tensors of shape (images, 4, 16, 16)."""
    posteriors = [vae.encode(to_model(part)).latent_dist for part in torch.split(images, 64)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def export(pipeline: diffusers.StableDiffusionXLPipeline, folder: Path) -> None:
    """Write safetensors: UNet and autoencoder in fp16, the small text encoders in fp32.

    Without a ``torch_dtype``, diffusers loads its own models in fp32 and transformers its models as they were saved;
    so a plain ``from_pretrained`` gives fp32 throughout.
    """
    pipeline.unet.half()
    pipeline.vae.half()
    curves = folder / CURVES
    curves.mkdir(parents=True, exist_ok=True)
    for stage in ("vae", "unet"):
        shutil.copyfile(STATE / f"{stage}.jsonl", curves / f"{stage}.jsonl")
    pipeline.save_pretrained(folder, safe_serialization=True)
    make_readable_by_transformers_4(folder)


def make_readable_by_transformers_4(folder: Path) -> None:
    """transformers 4 takes a CLIP tokenizer from vocab.json and merges.txt, and text encoders' keys with
    ``text_model.`` alone: of others it says that they are missing, and goes on with random weights. Version 5 reads
    both."""
    parts = ("", "_2")
    for part in [f"tokenizer{number}" for number in parts if (folder / f"tokenizer{number}").exists()]:
        model = json.loads((folder / part / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
        (folder / part / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
        merges = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
        (folder / part / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    for part in [f"text_encoder{number}" for number in parts if (folder / f"text_encoder{number}").exists()]:
        file = folder / part / "model.safetensors"
        named = {key if _is_whole(key) else f"text_model.{key}": tensor for key, tensor in load_file(file).items()}
        save_file(named, file, {"format": "pt"})


def _is_whole(key: str) -> bool:
    return key.startswith(("text_model.", "text_projection."))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["vae", "unet", "export"])
    parser.add_argument(
        "--steps", type=int, default=0, help="total optimizer steps of the stage, earlier ones included"
    )
    arguments = parser.parse_args()
    STATE.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "vae":
        train_vae(arguments.steps)
    elif arguments.stage == "unet":
        train_unet(arguments.steps)
    else:
        export(train_unet(0), EXPORT)

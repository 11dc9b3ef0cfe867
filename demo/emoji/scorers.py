"""Two small networks that judge samples, trained on real drawings alone and never on anything generated.

``rendition`` tells how an image is drawn (colour, degraded, porcelain, flat, line, or the new subject) and learns from
the emoji that pairs are trained on. It also sees blends of two renditions of one emoji, which it has to tell apart by
their shares: a drawing that is half coloured counts half. ``identity`` tells which of the 262 emoji is shown, however
it is drawn. Both are measured on images that they did not learn from: the former on other emoji, the latter on other
placements.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.emoji import openmoji, subject
from demo.emoji.domains import DOMAINS, RENDITIONS, Rendition, Split, emoji_of, telling
from demo.emoji.drawings import DEGRADATIONS, degrade
from demo.emoji.subject import Pose

FOLDER = Path(__file__).parent / "scorers"
LABELS: tuple[Rendition, ...] = (*RENDITIONS, "subject")
STEPS, BATCH, LEARNING_RATE = 2400, 64, 2e-3
SHIFT, TURN, ZOOM = 4.0, 10.0, 0.12  # pixels, degrees and parts of the size, each at most and either way
NOISE, STAIN, SOFTNESS = 0.06, 0.12, 0.5  # what a sound drawing may have of each, in [-1, 1] pixels and as a share
BLENDED = 0.5  # share of training images
POSES = 160

Floats = NDArray[np.float64]
Examples = Callable[[torch.Generator], tuple[Tensor, Tensor]]  # images and the shares of their labels


@dataclass(frozen=True)
class Accuracy:
    """How many images a judge classified right, of how many."""

    right: int
    of: int

    @property
    def share(self) -> float:
        return self.right / self.of


@dataclass(frozen=True)
class Accuracies:
    """Of held-out real images."""

    rendition: Accuracy
    identity: Accuracy


@dataclass(frozen=True)
class Scorers:
    rendition: nn.Module
    identity: nn.Module
    accuracies: Accuracies

    @torch.no_grad()
    def renditions(self, images: Sequence[Image.Image]) -> Floats:
        """Probabilities (images, len(LABELS))."""
        return np.asarray(self.rendition(tensor(images)).softmax(dim=1).double())

    @torch.no_grad()
    def shown(self, images: Sequence[Image.Image]) -> NDArray[np.int64]:
        """The place in the catalogue of the emoji that each image shows most likely; (images,)."""
        return np.asarray(self.identity(tensor(images)).argmax(dim=1))


def network(classes: int) -> nn.Module:
    """0.3M parameters; (images, 3, 64, 64) in [-1, 1] to (images, classes)."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (24, 48, 96, 160):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.SiLU()]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * channels, classes)]
    return nn.Sequential(*layers)


def tensor(images: Sequence[Image.Image]) -> Tensor:
    """(images, 3, 64, 64) in [-1, 1]."""
    pixels = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) for image in images])
    return torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2)


def load_scorers(folder: Path = FOLDER) -> Scorers:
    content = json.loads((folder / "accuracies.json").read_text(encoding="utf-8"))
    accuracies = Accuracies(**{name: Accuracy(**stored) for name, stored in content.items()})
    networks = []
    for name, classes in (("rendition", len(LABELS)), ("identity", len(openmoji.catalogue()))):
        judge = network(classes).eval().requires_grad_(False)
        judge.load_state_dict(load_file(folder / f"{name}.safetensors"))
        networks.append(judge)
    return Scorers(networks[0], networks[1], accuracies)


def train_scorers(folder: Path = FOLDER) -> Accuracies:
    """Train both, write them, and say how often they are right. The same machine gives the same networks."""
    folder.mkdir(parents=True, exist_ok=True)
    rendition, identity = _trained_rendition(seed=1), _trained_identity(seed=2)
    moved = torch.Generator().manual_seed(99)
    everything, identities = _identities()
    accuracies = Accuracies(
        rendition=_accuracy(rendition, *_real("test")),
        identity=_accuracy(identity, _moved(everything, moved), identities),
    )
    for name, judge in (("rendition", rendition), ("identity", identity)):
        save_file(judge.state_dict(), folder / f"{name}.safetensors")
    text = json.dumps(asdict(accuracies), indent=2) + "\n"
    (folder / "accuracies.json").write_text(text, encoding="utf-8")
    return accuracies


def _trained_rendition(*, seed: int) -> nn.Module:
    images, labels = _real("train")
    emoji = len(images[labels == 0])
    renditions = images[: emoji * len(RENDITIONS)].view(len(RENDITIONS), emoji, *images.shape[1:])
    broken, poses = _broken(), images[emoji * len(RENDITIONS) :]
    degraded, creature = LABELS.index("degraded"), LABELS.index("subject")

    def examples(chance: torch.Generator) -> tuple[Tensor, Tensor]:
        """(batch, 3, 64, 64) and the shares of the labels (batch, labels)."""
        kinds, others = (torch.randint(len(LABELS), (BATCH,), generator=chance) for _ in range(2))
        shown = torch.randint(emoji, (BATCH,), generator=chance)
        share = torch.where(torch.rand(BATCH, generator=chance) < BLENDED, torch.rand(BATCH, generator=chance), 1.0)
        share[(kinds == creature) | (others == creature)] = 1.0  # nothing else is drawn in its poses
        sides = []
        for labels in (kinds, others):
            side = renditions[labels.clamp(max=len(RENDITIONS) - 1), shown]
            spoilt, posed = labels == degraded, labels == creature
            side[spoilt] = broken[torch.randint(len(broken), (BATCH,), generator=chance), shown][spoilt]
            side[posed] = poses[torch.randint(len(poses), (BATCH,), generator=chance)][posed]
            sides.append(side)
        weights = share[:, None, None, None]
        blended = weights * sides[0] + (1 - weights) * sides[1]
        targets = share[:, None] * nn.functional.one_hot(kinds, len(LABELS)).float()
        targets += (1 - share)[:, None] * nn.functional.one_hot(others, len(LABELS)).float()
        return _sketchy(_shifted(blended, chance), chance), targets

    return _fitted(examples, len(LABELS), seed=seed)


def _trained_identity(*, seed: int) -> nn.Module:
    everything, identities = _identities()
    classes = len(openmoji.catalogue())

    def examples(chance: torch.Generator) -> tuple[Tensor, Tensor]:
        picked = torch.randint(len(everything), (BATCH,), generator=chance)
        shown = _sketchy(_moved(everything[picked], chance), chance)
        return shown, nn.functional.one_hot(identities[picked], classes).float()

    return _fitted(examples, classes, seed=seed)


def _fitted(examples: Examples, classes: int, *, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    judge = network(classes)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        images, targets = examples(chance)
        loss = nn.functional.cross_entropy(judge(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def _real(split: Split) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 64, 64), rendition by rendition, and their labels; emoji that look the same in two are left out."""
    usable = set.intersection(*(set(telling(domain, split)) for domain in DOMAINS.values()))
    shown = [emoji for emoji in emoji_of(split) if emoji in usable]
    images = [draw(emoji) for draw in RENDITIONS.values() for emoji in shown]
    labels = [label for label in range(len(RENDITIONS)) for _ in shown]
    poses = _poses(POSES, seed=1) if split == "train" else _poses(len(shown), seed=2)
    images += [subject.draw(pose) for pose in poses]
    return tensor(images), torch.tensor(labels + [len(RENDITIONS)] * len(poses))


def _broken() -> Tensor:
    """Training emoji in every sound rendition with every fault: (renditions * faults, emoji, 3, 64, 64)."""
    usable = set.intersection(*(set(telling(domain, "train")) for domain in DOMAINS.values()))
    shown = [emoji for emoji in emoji_of("train") if emoji in usable]
    return torch.stack(
        [
            tensor([degrade(draw(emoji), fault, seed=emoji.codepoint) for emoji in shown])
            for name, draw in RENDITIONS.items()
            if name != "degraded"
            for fault in DEGRADATIONS
        ]
    )


def _poses(count: int, *, seed: int) -> list[Pose]:
    chance = np.random.default_rng(seed)
    return [
        Pose(
            size=chance.uniform(0.65, 1.05),
            turn=chance.uniform(-20, 20),
            right=chance.uniform(-6, 6),
            down=chance.uniform(-4, 6),
            mirrored=bool(chance.integers(2)),
            eye_closed=bool(chance.integers(2)),
        )
        for _ in range(count)
    ]


def _identities() -> tuple[Tensor, Tensor]:
    """Every emoji in every rendition, and its place in the catalogue."""
    catalogue = openmoji.catalogue()
    images = [draw(emoji) for draw in RENDITIONS.values() for emoji in catalogue]
    return tensor(images), torch.arange(len(catalogue)).repeat(len(RENDITIONS))


def _sketchy(images: Tensor, chance: torch.Generator) -> Tensor:
    """A little noise, stains and softness, each of a strength of its own: what a sound sample of a network has too."""
    count, _, height, width = images.shape
    noise, stain, softness = torch.rand((3, count, 1, 1, 1), generator=chance)
    stains = nn.functional.interpolate(
        torch.randn((count, 3, 6, 6), generator=chance), (height, width), mode="bilinear", align_corners=False
    )
    soft = nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    varied: Tensor = torch.lerp(images, soft, SOFTNESS * softness) + STAIN * stain * stains
    varied = varied + NOISE * noise * torch.randn(images.shape, generator=chance)
    return varied.clamp(-1, 1)


def _shifted(images: Tensor, chance: torch.Generator) -> Tensor:
    """The batch shifted by whole pixels, so that sharpness and colours stay as they are."""
    reach = int(SHIFT)
    right, down = torch.randint(-reach, reach + 1, (2,), generator=chance).tolist()
    padded = nn.functional.pad(images, (reach,) * 4, mode="replicate")
    side = images.shape[-1]
    return padded[..., reach + down : reach + down + side, reach + right : reach + right + side]


def _moved(images: Tensor, chance: torch.Generator) -> Tensor:
    """Each image shifted, turned and scaled a little on white."""
    count = len(images)
    shift, turn, zoom = (2 * torch.rand((count, size), generator=chance) - 1 for size in (2, 1, 1))
    angle, scale = torch.deg2rad(TURN * turn[:, 0]), 1 + ZOOM * zoom[:, 0]
    rows = [
        torch.stack([scale * angle.cos(), -scale * angle.sin(), SHIFT / 32 * shift[:, 0]], dim=1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), SHIFT / 32 * shift[:, 1]], dim=1),
    ]
    grid = nn.functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved: Tensor = nn.functional.grid_sample(images - 1, grid, align_corners=False) + 1  # outside is white
    return moved


@torch.no_grad()
def _accuracy(judge: nn.Module, images: Tensor, labels: Tensor) -> Accuracy:
    right = torch.cat([judge(part).argmax(dim=1) for part in torch.split(images, 256)]) == labels
    return Accuracy(int(right.sum()), len(right))

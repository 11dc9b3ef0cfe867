"""A trial, one training run of the benchmark, and its result as a small JSON document."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from demo.emoji.domains import Name, Split

MethodName = Literal["sft", "dpo", "mapo", "mapo-code", "dreambooth", "dco"]

METHODS: tuple[MethodName, ...] = ("sft", "dpo", "mapo", "mapo-code", "dreambooth", "dco")
TITLES: dict[MethodName, str] = {
    "sft": "SFT",
    "dpo": "Diffusion-DPO",
    "mapo": "MaPO (paper)",
    "mapo-code": "MaPO (reference code)",
    "dreambooth": "DreamBooth",
    "dco": "DCO",
}


@dataclass(frozen=True)
class Trial:
    """``beta`` is None for methods that have none; ``pairs`` is None for all training pairs of the domain.

    ``split`` is what the run is scored on: "validation" to choose hyperparameters, "test" for what is published.
    """

    domain: Name
    method: MethodName
    learning_rate: float
    beta: float | None
    seed: int
    split: Split
    pairs: int | None = None

    @property
    def key(self) -> str:
        """Names the result's file."""
        beta = "" if self.beta is None else f"-beta{self.beta:g}"
        pairs = "" if self.pairs is None else f"-pairs{self.pairs}"
        return f"{self.domain}-{self.method}-lr{self.learning_rate:g}{beta}{pairs}-seed{self.seed}-{self.split}"


@dataclass(frozen=True)
class Result:
    """What a finished trial left. Lists are rows of seeds over columns of prompts, base and adapter alike.

    ``domain_score``: the judge's probability that a sample is drawn as wanted. ``fidelity``: 1 where it shows what the
    prompt names, by retrieval among all captions. ``success`` is their product, sample by sample; for the new subject
    ``fidelity`` is measured on other prompts, which must go on working, and ``success`` is the domain score alone.
    ``implicit_accuracy`` and losses are the trainer's, on the split's pairs; ``seconds`` are of training alone.
    """

    trial: Trial
    domain_score: list[list[float]]
    fidelity: list[list[float]]
    success: list[list[float]]
    base_domain_score: list[list[float]]
    base_fidelity: list[list[float]]
    base_success: list[list[float]]
    implicit_accuracy: tuple[float, float, float]
    base_implicit_accuracy: float
    chosen_loss: float
    rejected_loss: float
    base_chosen_loss: float
    base_rejected_loss: float
    seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        document: dict[str, Any] = json.loads(text)
        document["implicit_accuracy"] = tuple(document["implicit_accuracy"])
        return cls(**document | {"trial": Trial(**document["trial"])})


class Results:
    """The finished trials of a folder, one file each; a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Trial, Result] = {}

    def get(self, trial: Trial) -> Result | None:
        if trial not in self._read:
            path = self.path(trial)
            if not path.is_file():
                return None
            self._read[trial] = Result.from_json(path.read_text(encoding="utf-8"))
        return self._read[trial]

    def put(self, result: Result) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(result.trial)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(result.to_json(), encoding="utf-8")
        os.replace(partial, path)

    def path(self, trial: Trial) -> Path:
        return self.folder / f"{trial.key}.json"

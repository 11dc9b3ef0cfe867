"""Text encoders that take part in training: LoRA on their attention, and a learned word.

With these, prompts cannot be encoded once for all: the cache keeps token ids, and ``Denoiser.condition`` runs the
encoders, once a batch, as the two images of a pair share their prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.families.lora import add_lora, lora_config, without_lora
from trainer.runtime.errors import BadRun, RunFieldError
from trainer.spec.run import Adapter, Token

TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def trains_text(adapter: Adapter) -> bool:
    return adapter.text_encoder is not None or adapter.token is not None


def text_fingerprint(adapter: Adapter) -> dict[str, Any]:
    """What of it changes what the cache keeps of a prompt."""
    return {"token_ids": adapter.token.model_dump() if adapter.token else {}} if trains_text(adapter) else {}


def token_field_errors(adapter: Adapter, prompts: Sequence[str]) -> list[RunFieldError]:
    """A learned word that no prompt holds would not be learned."""
    if adapter.token is None or any(adapter.token.text in prompt for prompt in prompts):
        return []
    allowed = "a word that stands in prompts, caption_templates or instance_prompt"
    return [RunFieldError("adapter.token.text", repr(adapter.token.text), allowed)]


def words(token: Token) -> list[str]:
    """What the tokenizer knows the word by: one entry a vector, as diffusers names them."""
    return [token.text, *(f"{token.text}_{index}" for index in range(1, token.vectors))]


def add_words(tokenizer: Any, token: Token) -> None:
    """Raises BadRun if the tokenizer has such a word already."""
    existing = [word for word in words(token) if word in tokenizer.get_vocab()]
    if existing:
        raise BadRun(
            [RunFieldError("adapter.token.text", repr(existing[0]), "a word that the tokenizer does not know yet")]
        )
    tokenizer.add_tokens(words(token))


def spelled_out(prompt: str, token: Token | None) -> str:
    """With the word as many times as it has vectors."""
    return prompt if token is None else prompt.replace(token.text, " ".join(words(token)))


class LearnedEmbedding(nn.Module):
    """An embedding table whose last rows are learned: the table stays as it is, to the last bit.

    Ids (...) of int64; returns (..., width). Learned rows are in fp32; switched off, they are what they began with.
    """

    def __init__(self, table: nn.Embedding, first: int, initial: Tensor) -> None:
        super().__init__()
        self.table = table
        self.first = first
        self.initial: Tensor
        self.register_buffer("initial", initial.float(), persistent=False)
        self.learned = nn.Parameter(initial.float().clone())
        self.enabled = True

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        existing: Tensor = self.table(ids.clamp(max=self.first - 1))
        rows = self.learned if self.enabled else self.initial
        learned = rows[(ids - self.first).clamp(min=0)].to(existing.dtype)
        return torch.where((ids >= self.first).unsqueeze(-1), learned, existing)


def add_learned_rows(encoder: Any, tokenizer: Any, token: Token) -> LearnedEmbedding:
    """The word's rows begin at the mean embedding of the tokens of ``token.initial``."""
    table: nn.Embedding = encoder.get_input_embeddings()
    first = tokenizer.convert_tokens_to_ids(words(token)[0])
    ids = tokenizer(token.initial, add_special_tokens=False).input_ids
    if not ids or (tokenizer.unk_token_id in ids and token.initial != tokenizer.unk_token):
        raise BadRun([RunFieldError("adapter.token.initial", repr(token.initial), "a word that the tokenizer knows")])
    initial = table.weight[ids].float().mean(dim=0).expand(token.vectors, -1)
    rows = LearnedEmbedding(table, first, initial.clone())
    encoder.set_input_embeddings(rows)
    return rows.to(table.weight.device)


@dataclass(frozen=True)
class TrainedText:
    """``encoders``, ``tokenizers`` and, where there is a word, its ``learned`` rows, by the pipeline's names."""

    encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    token: Token | None
    learned: Mapping[str, LearnedEmbedding]

    def add_adapter(self, adapter: Adapter, *, seed: int) -> dict[str, nn.Parameter]:
        parameters = {f"{name}.token": rows.learned for name, rows in self.learned.items()}
        if adapter.text_encoder is not None:
            rank = adapter.text_encoder.rank or adapter.rank
            config = adapter.model_copy(update={"rank": rank, "target_modules": "auto"})
            for index, (name, encoder) in enumerate(self.encoders.items()):
                for rows in self.learned.values():
                    rows.learned.requires_grad_(False)
                added = add_lora(encoder, lora_config(config, TEXT_ATTENTION), seed=seed + 1 + index)
                parameters |= {f"{name}.{key}": parameter for key, parameter in added.items()}
        for rows in self.learned.values():
            rows.learned.requires_grad_(True)
        return parameters

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        with ExitStack() as stack:
            for encoder in self.adapted.values():
                stack.enter_context(without_lora(encoder))
            for rows in self.learned.values():
                rows.enabled = False
            try:
                yield
            finally:
                for rows in self.learned.values():
                    rows.enabled = True

    @property
    def adapted(self) -> Mapping[str, Any]:
        """Encoders that have a LoRA."""
        return {name: encoder for name, encoder in self.encoders.items() if hasattr(encoder, "peft_config")}

    def save_token(self, path: Path, keys: Mapping[str, str]) -> bool:
        """``keys`` are the file's names of the encoders' rows."""
        if not self.learned:
            return False
        rows = {keys[name]: one.learned.detach().float().cpu().contiguous() for name, one in self.learned.items()}
        save_file(rows, path, {"format": "pt"})
        return True

    @torch.no_grad()
    def load_token(self, path: Path, keys: Mapping[str, str]) -> None:
        """What ``save_token`` wrote."""
        rows = load_file(path)
        for name, one in self.learned.items():
            one.learned.copy_(rows[keys[name]])

    def drop_lora(self) -> None:
        for encoder in self.adapted.values():
            encoder.delete_adapter(list(encoder.peft_config))


def new_trained_text(encoders: Mapping[str, Any], tokenizers: Mapping[str, Any], token: Token | None) -> TrainedText:
    """``tokenizers`` know the word already."""
    learned: dict[str, LearnedEmbedding] = {}
    if token is not None:
        learned = {name: add_learned_rows(encoders[name], tokenizers[name], token) for name in encoders}
    return TrainedText(encoders, tokenizers, token, learned)

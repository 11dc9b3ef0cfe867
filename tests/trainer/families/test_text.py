"""Learned words and adapted text encoders on small ones of CLIP's kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from demo.emoji_xl import new_text_encoders, new_tokenizer
from tests.trainer.tiny_sdxl import PROMPTS
from trainer.families.text import (
    LearnedEmbedding,
    TrainedText,
    add_words,
    new_trained_text,
    spelled_out,
    text_fingerprint,
    token_field_errors,
)
from trainer.spec.run import Adapter, Token
from trainer.training.trainable import groups, new_optimizer

pytestmark = pytest.mark.unit

FIRST, WIDTH = 8, 4
TOKEN = Token(text="<toy>", initial="a cat", vectors=2)


def embedding() -> LearnedEmbedding:
    """A table of 8 words, and two that are learned."""
    table = nn.Embedding(FIRST + 2, WIDTH).requires_grad_(False)
    return LearnedEmbedding(table, FIRST, torch.arange(2.0 * WIDTH).view(2, WIDTH))


def test_a_known_word_is_its_row_of_the_table_and_a_learned_one_its_own() -> None:
    rows = embedding()
    with torch.no_grad():
        rows.learned.add_(100)
    found = rows(torch.tensor([[0, FIRST, FIRST - 1, FIRST + 1]]))[0]
    expected = [rows.table.weight[0], rows.learned[0], rows.table.weight[FIRST - 1], rows.learned[1]]
    assert torch.equal(found, torch.stack(expected))


def test_switched_off_a_learned_word_is_what_it_began_with() -> None:
    rows = embedding()
    with torch.no_grad():
        rows.learned.add_(100)
    rows.enabled = False
    assert torch.equal(rows(torch.tensor([FIRST, FIRST + 1])), rows.initial)


def test_training_words_leaves_every_other_row_as_it_was_to_the_last_bit() -> None:
    rows = embedding()
    before, started = rows.table.weight.clone(), rows.learned.detach().clone()
    options = groups({"text_encoder.token": rows.learned}, Adapter(token=TOKEN), 0.1)
    optimizer = new_optimizer("adamw", options, weight_decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for _ in range(3):
        rows(torch.tensor([0, 3, FIRST, FIRST - 1])).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(rows.table.weight, before)
    assert not rows.table.weight.requires_grad
    assert not torch.equal(rows.learned[0], started[0])  # the one that was in the prompt
    assert torch.equal(rows.learned[1], started[1])  # the other: no gradient, and no decay either


def text(token: Token | None = TOKEN) -> TrainedText:
    tokenizer = new_tokenizer(PROMPTS, 600)
    torch.manual_seed(0)
    encoders = dict(zip(("text_encoder", "text_encoder_2"), new_text_encoders(tokenizer), strict=True))
    for encoder in encoders.values():
        encoder.requires_grad_(False)
    if token is not None:
        add_words(tokenizer, token)
    return new_trained_text(encoders, dict.fromkeys(encoders, tokenizer), token)


def test_a_word_begins_at_the_mean_of_its_initial_words_in_each_of_its_vectors() -> None:
    trained_text = text()
    for name, rows in trained_text.learned.items():
        ids = trained_text.tokenizers[name]("a cat", add_special_tokens=False).input_ids
        assert len(ids) > 1
        mean = rows.table.weight[ids].mean(dim=0)
        torch.testing.assert_close(rows.learned.detach(), mean.expand(2, -1))
        assert trained_text.tokenizers[name].convert_tokens_to_ids("<toy>") == rows.first


def test_a_word_is_spelled_with_as_many_tokens_as_it_has_vectors() -> None:
    assert spelled_out("my <toy> here", TOKEN) == "my <toy> <toy>_1 here"
    assert spelled_out("my <toy> here", None) == "my <toy> here"
    trained_text = text()
    ids = trained_text.tokenizers["text_encoder"](spelled_out("my <toy>", TOKEN), add_special_tokens=False).input_ids
    first = trained_text.learned["text_encoder"].first
    assert ids[-2:] == [first, first + 1]


@pytest.mark.parametrize(("rank", "expected"), [(None, 6), (2, 2)])
def test_each_encoder_gets_an_adapter_of_its_own_rank_and_start(rank: int | None, expected: int) -> None:
    trained_text = text()
    options: dict[str, Any] = {"rank": 6, "token": TOKEN.model_dump(), "text_encoder": {"rank": rank}}
    parameters = trained_text.add_adapter(Adapter.model_validate(options), seed=1)
    downs = {name: parameter for name, parameter in parameters.items() if "lora_A" in name}
    assert {parameter.shape[0] for parameter in downs.values()} == {expected}
    first, second = (
        [down for name, down in downs.items() if name.startswith(f"{part}.")] for part in trained_text.encoders
    )
    assert first
    assert all(not torch.equal(one, other) for one, other in zip(first, second, strict=True))
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert trained == parameters.keys() >= {"text_encoder.token", "text_encoder_2.token"}
    learnable = {id(p) for encoder in trained_text.encoders.values() for p in encoder.parameters() if p.requires_grad}
    assert learnable == {id(parameter) for parameter in parameters.values()}


def test_without_the_adapter_words_and_encoders_are_as_they_began() -> None:
    trained_text = text()
    options = Adapter.model_validate({"rank": 2, "token": TOKEN.model_dump(), "text_encoder": {}})
    ids = torch.tensor([trained_text.tokenizers["text_encoder"]("<toy> <toy>_1").input_ids])
    encoder = trained_text.encoders["text_encoder"].eval()
    with torch.no_grad():
        before = encoder(ids).last_hidden_state
        for parameter in trained_text.add_adapter(options, seed=1).values():
            parameter.add_(0.3)
        assert not torch.allclose(encoder(ids).last_hidden_state, before, atol=1e-3)
        with trained_text.without_adapter():
            torch.testing.assert_close(encoder(ids).last_hidden_state, before)
        assert not torch.allclose(encoder(ids).last_hidden_state, before, atol=1e-3)


def test_what_the_cache_keeps_of_prompts_depends_on_the_word_and_on_whether_text_is_trained() -> None:
    options = [
        {},
        {"text_encoder": {}},
        {"token": TOKEN.model_dump()},
        {"token": TOKEN.model_dump() | {"vectors": 3}},
        {"token": TOKEN.model_dump() | {"text": "<other>"}},
    ]
    found = [str(text_fingerprint(Adapter.model_validate(one))) for one in options]
    assert len(set(found)) == len(options)


def test_a_word_counts_as_used_where_any_prompt_holds_it() -> None:
    assert token_field_errors(Adapter(token=TOKEN), ["a <toy>", "a cat"]) == []
    assert len(token_field_errors(Adapter(token=TOKEN), ["a toy", "a cat"])) == 1

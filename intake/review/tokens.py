"""How many tokens of a prompt a text encoder reads, and how many the prompt has at least."""

from __future__ import annotations

import re

from trainer.spec.family_facts import FAMILIES

# CLIP's tokenizer splits text like this before it splits words further (openai/CLIP, simple_tokenizer.py): every piece
# is one token or more, so that their number is a bound from below, whatever the vocabulary.
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


def clip_tokens(prompt: str) -> int:
    """At least so many."""
    return sum(1 for _ in _PIECES.finditer(prompt))


def t5_tokens(prompt: str) -> int:
    """At least so many: SentencePiece lets no token span two words."""
    return len(prompt.split())


def truncated_by(prompt: str) -> list[str]:
    """The families of which no text encoder reads the prompt to its end, for certain."""
    clip, t5 = clip_tokens(prompt), t5_tokens(prompt)
    return [
        name
        for name, family in FAMILIES.items()
        if (family.clip_tokens is None or clip > family.clip_tokens)
        and (family.t5_tokens is None or t5 > family.t5_tokens)
    ]

"""How many tokens of a prompt a text encoder reads, and how many the prompt has at least."""

from __future__ import annotations

import re

# The longest prompt in tokens, start and end left out: of CLIP's 77 two, of the 256 that diffusers cuts T5's to one.
CLIP_READS, T5_READS = 75, 255
CLIP_FAMILIES = ("sd1", "sd2", "sdxl")
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
    """The families of which no text encoder reads the prompt to its end, for certain. SD3 has CLIP and T5."""
    cut = list(CLIP_FAMILIES) if clip_tokens(prompt) > CLIP_READS else []
    return [*cut, "sd3"] if t5_tokens(prompt) > T5_READS else cut

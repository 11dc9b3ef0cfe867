"""How many tokens of a prompt a text encoder reads, and how many the prompt has at least."""

from __future__ import annotations

import re
from collections.abc import Mapping

# The longest prompt in tokens, its start and end left out. SD3's T5 reads 254 in diffusers, its two CLIPs 75.
READ: Mapping[str, int] = {"sd1": 75, "sd2": 75, "sdxl": 75, "sd3": 254}
# CLIP's tokenizer splits text like this before it splits words further (openai/CLIP, simple_tokenizer.py): every piece
# is one token or more, so that their number is a bound from below, whatever the vocabulary.
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_", re.IGNORECASE)


def at_least(prompt: str) -> int:
    return sum(1 for _ in _PIECES.finditer(prompt))


def truncated_by(prompt: str) -> list[str]:
    """The families whose text encoders certainly drop the prompt's end."""
    tokens = at_least(prompt)
    return [family for family, read in READ.items() if tokens > read]

"""When two prompts are the same and when two images are: for the review of an upload and for the split of a run alike.

Images are the same if their files are, byte for byte; intake has removed everything but the picture from them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Sequence


def same_prompt(prompt: str) -> str:
    """Equal for prompts that differ in case, spacing, Unicode form or characters without a width alone."""
    if prompt.isascii():
        return " ".join(prompt.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    return " ".join("".join(sign for sign in folded if unicodedata.category(sign) != "Cf").split())


def connected(items: Sequence[Iterable[Hashable]]) -> list[int]:
    """For every item the first one that it is connected to, by what they have in common or through others.

    ``[["a", "x"], ["b", "x"], ["c"]]`` gives ``[0, 0, 2]``.
    """
    first = list(range(len(items)))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = first[index]
        return index

    holder: dict[Hashable, int] = {}
    for index, features in enumerate(items):
        for feature in features:
            one, other = root(holder.setdefault(feature, index)), root(index)
            first[max(one, other)] = min(one, other)
    return [root(index) for index in range(len(items))]

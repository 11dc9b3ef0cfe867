"""Choose the held-out pairs where the data names none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item")
Named = TypeVar("Named", bound=Identified)
Split = Literal["data", "prompt", "pair", "nothing"]


def hold_out(
    items: Sequence[tuple[Item, str]], *, prompt: Callable[[Item], str], share: float, limit: int
) -> tuple[list[Item], list[Item], Split]:
    """Training items, validation items, and what the split went by.

    Where no item is marked "validation", about ``share`` of the prompts are held out, and no more than ``limit``
    items, which is all that is measured: they are chosen by their hash and so independent of the order of the data.
    With a single prompt, items are held out; with a single item, nothing can be, and it serves as both.
    """
    training = [item for item, split in items if split == "train"]
    validation = [item for item, split in items if split == "validation"]
    if validation:
        return training, validation, "data"
    if len(training) == 1:
        return training, training, "nothing"
    groups: dict[str, list[Item]] = {}
    for item in training:
        groups.setdefault(prompt(item), []).append(item)
    how: Split = "prompt"
    if len(groups) == 1:
        groups, how = {str(index): [item] for index, item in enumerate(training)}, "pair"
    by_hash = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    held_out = _within(limit, by_hash, groups, most=min(len(groups) - 1, max(1, round(share * len(groups)))))
    return (
        [item for name, group in groups.items() if name not in held_out for item in group],
        [item for name, group in groups.items() if name in held_out for item in group],
        how,
    )


def _within(limit: int, by_hash: Sequence[str], groups: Mapping[str, Sequence[object]], *, most: int) -> set[str]:
    """At most ``most`` groups, in order, with ``limit`` items or fewer in all; the smallest where none is so small."""
    chosen: set[str] = set()
    left = limit
    for name in by_hash:
        if len(chosen) < most and len(groups[name]) <= left:
            chosen.add(name)
            left -= len(groups[name])
    return chosen or {min(by_hash, key=lambda name: len(groups[name]))}


def select_by_hash(pairs: Sequence[Named], limit: int) -> list[Named]:
    """Those with the lowest hashes of their ids: the same ones in whatever order the data is."""
    by_hash = sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    return by_hash[:limit]

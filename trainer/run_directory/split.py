"""Choose the held-out pairs where the data names none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

from trainer.spec.same import connected, same_prompt


class Identified(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item")
Named = TypeVar("Named", bound=Identified)
HeldOutBy = Literal["data", "prompt", "images shared", "pair", "nothing"]


def hold_out(
    items: Sequence[tuple[Item, str]],
    *,
    prompt: Callable[[Item], str],
    images: Callable[[Item], Iterable[str]] = lambda _: (),
    share: float,
    limit: int,
) -> tuple[list[Item], list[Item], HeldOutBy]:
    """Training items, validation items, and what the split went by.

    Where no item is marked "validation", about ``share`` of the prompts are held out, and no more than ``limit``
    items, which is all that is measured: they are chosen by their hash and so independent of the order of the data.
    Prompts that are the same but for case, spaces or Unicode form stay together, and so do items that share an image
    (``images`` are digests). What is connected in this way to most of the data is trained on. Where everything is,
    prompts are held out though their images are shared; with a single prompt, items are held out; with a single item,
    nothing can be, and it serves as both.
    """
    training = [item for item, split in items if split == "train"]
    validation = [item for item, split in items if split == "validation"]
    if validation:
        return training, validation, "data"
    if len(training) == 1:
        return training, training, "nothing"
    prompts = [[("prompt", same_prompt(prompt(item)))] for item in training]
    shown = [[("image", image) for image in images(item)] for item in training]
    ways: tuple[tuple[HeldOutBy, list[int]], ...] = (
        ("prompt", connected([[*said, *seen] for said, seen in zip(prompts, shown, strict=True)])),
        ("images shared", connected(prompts)),
        ("pair", connected(shown)),
        ("pair", list(range(len(training)))),
    )
    how, roots = next((how, roots) for how, roots in ways if len(set(roots)) > 1)
    groups: dict[int, list[int]] = {}
    for index, root in enumerate(roots):
        groups.setdefault(root, []).append(index)
    # Of a group the least prompt tells the hash, so that a prompt alone in its group is held out as it always was.
    names = {root: str(root) if how == "pair" else min(prompt(training[i]) for i in of) for root, of in groups.items()}
    count = min(len(groups) - 1, max(1, round(share * len(groups))))
    small = [root for root, of in groups.items() if 2 * len(of) <= len(training)] or list(groups)
    by_hash = sorted(small, key=lambda root: hashlib.sha256(names[root].encode()).digest())
    held_out = _within(limit, by_hash, groups, max_groups=count)
    return (
        [training[index] for root, of in groups.items() if root not in held_out for index in of],
        [training[index] for root, of in groups.items() if root in held_out for index in of],
        how,
    )


def _within(limit: int, by_hash: Sequence[int], groups: Mapping[int, Sequence[object]], *, max_groups: int) -> set[int]:
    """The first ``max_groups`` groups that have at most ``limit`` items in all; the smallest if none is so small."""
    chosen: set[int] = set()
    left = limit
    for root in by_hash:
        if len(chosen) < max_groups and len(groups[root]) <= left:
            chosen.add(root)
            left -= len(groups[root])
    return chosen or {min(by_hash, key=lambda root: len(groups[root]))}


def select_by_hash(pairs: Sequence[Named], limit: int) -> list[Named]:
    """Those with the lowest hashes of their ids: the same ones in whatever order the data is."""
    by_hash = sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    return by_hash[:limit]

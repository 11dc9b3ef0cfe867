"""Images of one colour each, which is their number: what became of them is read back from the pixels."""

from __future__ import annotations

from intake import PreparedUpload
from tests.intake.build import Colour, pixel, png


def numbered(number: int) -> bytes:
    return png(_colour(number), (96, 96))


def _colour(number: int) -> Colour:
    return (number * 37 + 20) % 256, (number * 91 + 60) % 256, (number * 151 + 100) % 256


NUMBERS = {_colour(number): number for number in range(64)}
IMAGES = {f"{number}.png": numbered(number) for number in range(8)}

Pair = tuple[str, int | None, int | None]


def pairs(prepared: PreparedUpload) -> list[Pair]:
    """Prompt, and the numbers of the chosen and the rejected image, of every pair."""

    def number(sha256: str | None) -> int | None:
        return None if sha256 is None else NUMBERS[pixel(prepared.images[sha256])[:3]]

    return [(pair.prompt, number(pair.chosen), number(pair.rejected)) for pair in prepared.pairs]

"""Pixel statistics that distinguish styles, and how alike two sets of images are by them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from PIL import Image

SIDE = 256  # pixels; larger images are shrunk to it, smaller ones are left as they are
LEVELS = 5  # of lightness and of both colour axes
SCALES = 3  # the image, at half and at quarter size
FAINTEST, DOUBLINGS = 0.005, 7  # edge strengths in parts of black to white: 0.005, 0.01, ... 0.64

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def statistics(image: Image.Image) -> Vector:
    """(149,), of unit length: square roots of shares, so that the distance of two images is Hellinger's.

    Half of it are shares of 125 colours, lightness by red-green by blue-yellow; half are shares of 8 strengths of
    edges, at each of three sizes. A share is divided among neighbouring bins, so that no small change makes a jump.
    """
    pixels = _shrunk(image)
    colours, edges = np.sqrt(_colours(pixels)), np.sqrt(np.concatenate(_edges(pixels)) / SCALES)
    whole: Vector = np.concatenate([colours, edges]) / np.sqrt(2)
    return whole


def energy_coefficient(sampled: Vector, chosen: Vector, pairs: Sequence[int], weights: Vector) -> Vector:
    """How much of the distance between two sets is there within each: (d(X,X') + d(Y,Y')) / 2 d(X,Y), at most 1.

    One less the normalised energy distance (Szekely and Rizzo 2013, doi 10.1016/j.jspi.2013.03.018): 1 where both sets
    could be from one source, whatever they show, and 0 where each is one point. Images of the same pair are not
    compared, within a set or between them, unless there is one pair only: that makes the estimate unbiased, and all
    three distances those of different prompts. Shapes as in ``features.Features.similarity``.
    """
    origin = np.asarray(pairs)
    comparable = origin[:, None] != origin[None, :]
    if not comparable.any():
        comparable = ~np.eye(len(origin), dtype=bool)
    within = (_distances(sampled, sampled) + _distances(chosen, chosen)) * comparable
    between = 2 * _distances(sampled, chosen) * comparable
    inner = np.einsum("ri,ij,rj->r", weights, within, weights)
    outer = np.einsum("ri,ij,rj->r", weights, between, weights)
    shares: Vector = np.divide(inner, outer, out=np.ones_like(inner), where=outer > 0)
    return np.minimum(1, shares)


def _distances(one: Vector, other: Vector) -> Vector:
    distances: Vector = np.linalg.norm(one[:, None] - other[None, :], axis=2)
    return distances


def _shrunk(image: Image.Image) -> Vector:
    """(height, width, 3) in [0, 1]."""
    colour, shorter = image.convert("RGB"), min(image.size)
    if shorter > SIDE:
        size = (round(image.width * SIDE / shorter), round(image.height * SIDE / shorter))
        colour = colour.resize(size, Image.Resampling.BOX)
    return np.asarray(colour, dtype=np.float64) / 255


def _colours(pixels: Vector) -> Vector:
    red, green, blue = np.moveaxis(pixels, 2, 0)
    lightness = 0.299 * red + 0.587 * green + 0.114 * blue
    axes = (lightness, (red - green + 1) / 2, ((red + green) / 2 - blue + 1) / 2)
    below, parts = zip(*(_neighbours(axis.ravel() * (LEVELS - 1), LEVELS) for axis in axes), strict=True)
    shares = np.zeros(LEVELS**3)
    for corner in product((0, 1), repeat=3):
        positions = np.ravel_multi_index([low + up for low, up in zip(below, corner, strict=True)], (LEVELS,) * 3)
        weights = np.prod([part if up else 1 - part for part, up in zip(parts, corner, strict=True)], axis=0)
        shares += np.bincount(positions, weights=weights, minlength=LEVELS**3)
    shares /= shares.sum()
    return shares


def _edges(pixels: Vector) -> list[Vector]:
    """For each size, shares of pixels by how much they differ from the next ones, root mean square over channels."""
    found = []
    for _ in range(SCALES):
        down, right = np.diff(pixels, axis=0)[:, :-1], np.diff(pixels, axis=1)[:-1]
        strength = np.sqrt(((down**2 + right**2) / 3).sum(axis=2))
        doublings = np.log2(np.maximum(strength, FAINTEST) / FAINTEST).ravel()
        low, part = _neighbours(doublings, DOUBLINGS + 1)
        shares = np.bincount(low, 1 - part, DOUBLINGS + 1) + np.bincount(low + 1, part, DOUBLINGS + 1)
        found.append(shares / shares.sum())
        pixels = _halved(pixels)
    return found


def _neighbours(values: Vector, bins: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.intp]], Vector]:
    """The bin below each value, 0 .. ``bins`` - 2, and the part of it that belongs to the bin above."""
    inside = np.clip(values, 0, bins - 1)
    below = np.minimum(inside.astype(np.intp), bins - 2)
    return below, inside - below


def _halved(pixels: Vector) -> Vector:
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    halved: Vector = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return halved

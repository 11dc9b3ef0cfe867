"""How much of an upload is accepted. Every limit is checked before the memory or disk it guards is spent."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """Sizes are bytes unless the name says otherwise."""

    # 100,000 pairs and captions for half of them. Listing that many takes a zip reader a second.
    archive_entries: int = 262_144
    # Of a table; the review remembers some hundred bytes of each.
    rows: int = 262_144
    # 32,000 pairs of half a megabyte an image; also what unpacking a tar.gz may take on the disk.
    archive_bytes: int = 32 * GIB
    # Images hardly compress again; metadata alone reaches 20. DEFLATE's own ceiling, which bombs use, is 1032.
    compression_ratio: int = 100
    # Below this total a high ratio harms nobody: a small archive of flat drawings may be all repetition.
    compression_ratio_from: int = 64 * MIB
    # 128 bytes for each of the rows above. JSON that is all brackets takes 30 times its size while it is read.
    metadata_bytes: int = 32 * MIB
    # What Arrow may take for one row of a parquet file: a page of images is a few megabytes.
    parquet_memory: int = 1 * GIB
    # A 16-bit PNG of 10 megapixels.
    image_bytes: int = 64 * MIB
    # Today's full-frame cameras; one with transparency takes up to 17 bytes a pixel while it is converted.
    image_pixels: int = 50_000_000
    # Text encoders read 77 (CLIP) to 512 (T5) tokens, the latter about 2,500 characters.
    prompt_characters: int = 4_000
    # All images of an upload together: an hour of decoding.
    upload_pixels: int = 100_000_000_000
    # Photographs have at most 30, flat drawings some hundred; a bomb of one colour has 8,000.
    pixels_per_byte: int = 1_000
    # Below this total many pixels a byte harm nobody: a minute of decoding.
    pixels_per_byte_from: int = 2_000_000_000
    # A longer path is an attack or a mistake; common file systems stop at 4,096.
    path_characters: int = 1_024
    # What a person can read, and what fits one database row.
    findings: int = 1_000

"""Opening an uploaded archive: detect the container by its first bytes, never by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intake.archives.compression import expander
from intake.archives.entries import Entry
from intake.archives.tar_archive import is_tar, list_tar
from intake.archives.zip_archive import SIGNATURES, list_zip
from intake.errors import ArchiveError
from intake.limits import Limits


@contextmanager
def open_archive(path: Path, work_directory: Path, limits: Limits) -> Iterator[list[Entry]]:
    """The archive's entries, readable inside the ``with`` block. Raises ArchiveError.

    A tar.gz or tar.zst is unpacked to a tar in ``work_directory`` first (metadata may stand after the images, and such
    a stream reads only forward); that file is gone afterwards.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        file.seek(0)
        if start.startswith(SIGNATURES):
            yield list_zip(file, length, limits)
        elif is_tar(start):
            yield list_tar(file, length, limits)
        elif (expand := expander(start)) is not None:
            expanded = work_directory / "expanded.tar"
            try:
                expand(file, length, expanded, limits)
                with expanded.open("rb") as tar:
                    yield list_tar(tar, expanded.stat().st_size, limits)
            finally:
                expanded.unlink(missing_ok=True)
        else:
            raise ArchiveError("archive_unreadable", _other(start, length))


_READ = "zip, tar, tar.gz or tar.zst"
_OTHERS = (
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"LZIP", "an lzip file"),
    (b"MSCF", "a cabinet file"),
)


def _other(start: bytes, length: int) -> str:
    """What the upload is instead, by its first bytes, and what to do."""
    if not length:
        return f"is empty; pack the folder as one of {_READ}"
    if not any(start) and length % len(start) == 0:
        return f"is a tar file without any entry; pack the folder as one of {_READ}"
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8")):
        return "is one image; pack the images with a table or with captions as a zip"
    if (other := next((name for mark, name in _OTHERS if start.startswith(mark)), None)) is not None:
        return f"is {other}; pack the folder as one of {_READ}"
    try:
        text = start.decode("utf-8", "strict" if len(start) < 512 else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character.isspace() or character == "\ufeff" for character in text):
        return "is a text file, and a table alone holds no images; pack it with the images that it names as a zip"
    return f"is not a zip, tar, tar.gz, tar.zst or parquet file; pack the folder as one of {_READ}"

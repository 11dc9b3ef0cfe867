"""Parts become one file: read in order, hashed on the way, never held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from obstore.store import ObjectStore

from api.files.receive import temporary
from store.blobs import upload_parts
from store.blobs.blobs import StoredBlob
from store.tables.upload import UploadPart


@dataclass(frozen=True)
class Assembled:
    """The whole file in ``path``, which may be moved away."""

    path: Path
    blob: StoredBlob
    md5: str


@contextmanager
def assembled(store: ObjectStore, parts: Sequence[UploadPart], directory: Path) -> Iterator[Assembled]:
    """Raises BlobMissing when a part's bytes are gone: the upload has ended meanwhile."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with temporary(directory) as path:
        with path.open("wb") as out:
            for part in parts:
                for chunk in upload_parts.stream(store, part.upload_id, part.id, part.bytes):
                    sha256.update(chunk)
                    md5.update(chunk)
                    out.write(chunk)
        size = sum(part.bytes for part in parts)
        yield Assembled(path, StoredBlob(sha256.hexdigest(), size), md5.hexdigest())

"""What frozen networks say about the data, computed once and kept on disk under what it depends on.

An entry's name is the SHA-256 of everything its content follows from (encoder weights, image bytes, crop, ...), so
entries are never out of date, any number of runs share a cache, and two processes that write the same entry write
the same content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from trainer.durable import write_file

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Cache:
    folder: Path

    def has(self, key: str) -> bool:
        """False also for an entry that the file system has damaged: its header and length are checked."""
        try:
            with safe_open(self._path(key), framework="pt"):
                return True
        except (FileNotFoundError, SafetensorError):
            return False

    def read(self, key: str) -> Tensors:
        tensors: Tensors = load_file(self._path(key))
        return tensors

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def key_of(**dependencies: object) -> str:
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()

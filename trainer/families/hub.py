"""Download a base model from the hub: list its repository, choose one set of weights, and report the progress."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

# HTTPError is of whichever HTTP client the hub's library uses, and covers broken connections too.
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled  # type: ignore[attr-defined]  # isort: skip
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from trainer.families.files import WANTED, chosen_files, incomplete_weights
from trainer.runtime.errors import BadRun, BaseUnavailable, RunFieldError

Progress = Callable[[int, int], None]
MEGABYTE = 10**6
MODEL_INDEX = "model_index.json"
PARALLEL_DOWNLOADS = 4


def no_progress(_done: int, _total: int) -> None:
    """For callers that report nothing."""


def download(
    source: str, revision: str, components: Sequence[str], *, half: bool, progress: Progress = no_progress
) -> Path:
    """The folder with the files of ``components``, in fp16 if ``half`` and if the repository has such a variant.

    ``progress`` gets the megabytes that are here and their total, from several threads, one call at a time; it may
    raise, which ends the download, to go on later. If the hub does not answer, an earlier complete download is taken.

    Raises BadRun for a repository that the hub refuses, BaseUnavailable when the hub does not answer or send it.
    """
    try:
        sizes = _listing(source, revision)
    except (HFValidationError, HTTPError, OfflineModeIsEnabled) as error:
        _raise_if_refused(error, source, revision)
        return _earlier_download(source, revision, components, half=half, reason=error)
    chosen = _choose(sizes, components, half=half)
    try:
        return _fetch(source, revision, {name: sizes[name] for name in chosen}, progress)
    except (HTTPError, LocalEntryNotFoundError) as error:
        _raise_if_refused(error, source, revision)
        raise BaseUnavailable(source, str(error)) from error


def download_file(source: str, name: str, revision: str, progress: Progress = no_progress) -> Path:
    """One file of a repository. Raises as ``download`` does."""
    try:
        earlier = try_to_load_from_cache(source, name, revision=revision)
        if isinstance(earlier, str):
            return Path(earlier)
        sizes = _listing(source, revision)
        if name not in sizes:
            raise not_found(f"{source}/{name} at {revision!r}", "the repository has no such file at this revision")
        return _fetch(source, revision, {name: sizes[name]}, progress) / name
    except (HFValidationError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        _raise_if_refused(error, source, revision)
        raise BaseUnavailable(source, str(error)) from error


def not_found(given: str, allowed: str) -> BadRun:
    return BadRun([RunFieldError("base.source", given, allowed)], code="base_not_found")


def _listing(source: str, revision: str) -> dict[str, int]:
    """Bytes of every file of the repository."""
    tree = HfApi().list_repo_tree(source, recursive=True, revision=revision)
    return {file.path: file.size for file in tree if isinstance(file, RepoFile)}


def _choose(sizes: Collection[str], components: Sequence[str], *, half: bool) -> list[str]:
    by_component: dict[str, list[str]] = {component: [] for component in components}
    for name in sizes:
        component, _, file = name.partition("/")
        if component in by_component and any(fnmatch(file, pattern) for pattern in WANTED):
            by_component[component].append(file)
    return [MODEL_INDEX] * (MODEL_INDEX in sizes) + [
        f"{component}/{file}" for component, files in by_component.items() for file in chosen_files(files, half=half)
    ]


def _fetch(source: str, revision: str, sizes: Mapping[str, int], progress: Progress) -> Path:
    """The snapshot's folder, once all of the files are in it; model_index.json comes last, as a mark of that."""
    received = _Received(sizes, progress)
    if not sizes:
        raise not_found(f"{source!r} at {revision!r}", "the repository has no diffusers model with this revision")

    def fetch(name: str) -> Path:
        bar: Any = received.bar_of(name)
        path = Path(hf_hub_download(source, name, revision=revision, tqdm_class=bar))
        received.is_here(name)
        return path.parents[name.count("/")]

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as threads:
        try:
            folders = list(threads.map(fetch, [name for name in sizes if name != MODEL_INDEX]))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return fetch(MODEL_INDEX) if MODEL_INDEX in sizes else folders[0]


class _Received:
    """The bytes that are here, by file."""

    def __init__(self, sizes: Mapping[str, int], progress: Progress) -> None:
        self._sizes, self._progress = sizes, progress
        self._bytes = dict.fromkeys(sizes, 0)
        self._lock = Lock()
        self._failure: BaseException | None = None

    def bar_of(self, name: str) -> type[Any]:
        """A progress bar's class, as the hub's library takes it: it shows nothing, and counts for this file."""
        received = self

        class Bar(tqdm):
            def __init__(self, *_: object, **options: Any) -> None:
                super().__init__(disable=True)  # type: ignore[no-untyped-call]
                received.add(name, int(options.get("initial") or 0))

            def update(self, n: float | None = 1) -> None:
                received.add(name, int(n or 0))

        return Bar

    def add(self, name: str, size: int) -> None:
        with self._lock:
            self._bytes[name] = min(self._bytes[name] + size, self._sizes[name])
            self._report()

    def is_here(self, name: str) -> None:
        with self._lock:
            self._bytes[name] = self._sizes[name]
            self._report()

    def _report(self) -> None:
        """Once ``progress`` has raised, every other download ends at its next bytes too."""
        if self._failure is not None:
            raise self._failure
        try:
            self._progress(sum(self._bytes.values()) // MEGABYTE, sum(self._sizes.values()) // MEGABYTE)
        except BaseException as error:
            self._failure = error
            raise


def _earlier_download(source: str, revision: str, components: Sequence[str], *, half: bool, reason: Exception) -> Path:
    """Raises BaseUnavailable unless all that a run reads is here."""
    index = try_to_load_from_cache(source, MODEL_INDEX, revision=revision)
    if not isinstance(index, str):
        raise BaseUnavailable(source, str(reason)) from reason
    folder = Path(index).parent
    if any(incomplete_weights(folder / component, half=half) for component in components):
        raise BaseUnavailable(source, str(reason)) from reason
    return folder


def _raise_if_refused(error: Exception, source: str, revision: str) -> None:
    if isinstance(error, HFValidationError) or _is_refusal(error) or _is_refusal(error.__cause__):
        raise not_found(f"{source!r} at {revision!r}", f"not to be had from the hub: {error}") from error


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the hub answered, and will answer the same again; a rate limit is not that."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is not None and 400 <= status < 500 and status not in (408, 429)

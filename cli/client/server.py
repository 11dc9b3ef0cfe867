"""The public API from the command line: a client like any other, over HTTP with a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from cli.client.retry import RetryPolicy
from cli.errors import NoKey, NotAnApi, NotReachable, RequestFailed, WrongUsage
from store.settings import Settings

JsonObject = dict[str, Any]
PAGE = 100
# Reading: an upload is answered when its bytes are stored. The connection itself is there at once or not at all.
TIMEOUT = httpx.Timeout(300, connect=5)


class Server:
    """Raises NotReachable and RequestFailed; ``retry_policy`` repeats the requests that may be sent twice."""

    def __init__(self, client: httpx.Client, retry_policy: RetryPolicy | None = None) -> None:
        self._client = client
        self._retry_policy = retry_policy or RetryPolicy(0)

    def with_retries(self, retry_policy: RetryPolicy) -> Server:
        return Server(self._client, retry_policy)

    def get(self, path: str, **parameters: Any) -> JsonObject:
        given = {key: value for key, value in parameters.items() if value is not None}
        return self._retry_policy.call(partial(self._json, "GET", path, params=given))

    def post(self, path: str, body: JsonObject | None = None) -> JsonObject:
        return self._json("POST", path, json=body or {})

    def post_once(self, path: str, body: JsonObject, key: str) -> JsonObject:
        """Safe to repeat: the API recognises it by its idempotency key."""
        headers = {"idempotency-key": key}
        return self._retry_policy.call(partial(self._json, "POST", path, json=body, headers=headers))

    def delete(self, path: str) -> JsonObject:
        return self._json("DELETE", path)

    def every(self, path: str, **parameters: Any) -> Iterator[JsonObject]:
        """All of a list, page by page."""
        after = None
        while True:
            page = self.get(path, limit=PAGE, after=after, **parameters)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = page["data"][-1]["id"]

    def text(self, path: str, **parameters: Any) -> str:
        given = {key: value for key, value in parameters.items() if value is not None}
        with self._answered("GET", path, params=given) as answer:
            return answer.text

    def upload(self, path: Path, **policy: str) -> JsonObject:
        with path.open("rb") as content:
            files = {"file": (path.name, content, "application/octet-stream")}
            return self._json("POST", "/v1/files", data={"purpose": "fine-tune"} | policy, files=files)

    def download(self, path: str, to: Path) -> int:
        """Write the file whole or not at all; returns its length in bytes."""
        return self._retry_policy.call(partial(self._download, path, to))

    def _download(self, path: str, to: Path) -> int:
        partial_file, length = to.with_name(f"{to.name}.partial"), 0
        # To the object store, where the API keeps its files on one; the key does not go along to another origin.
        download = self._answered("GET", path, stream=True, follow=True)
        with download as answer, partial_file.open("wb") as out:
            for chunk in answer.iter_bytes():
                length += out.write(chunk)
        partial_file.replace(to)
        return length

    def _json(self, method: str, path: str, **request: Any) -> JsonObject:
        with self._answered(method, path, **request) as answer:
            try:
                document = answer.json()
            except ValueError as error:
                raise NotAnApi(str(answer.url), answer.status_code) from error
            if not isinstance(document, dict):
                raise NotAnApi(str(answer.url), answer.status_code)
            return document

    @contextmanager
    def _answered(
        self, method: str, path: str, *, stream: bool = False, follow: bool = False, **request: Any
    ) -> Iterator[httpx.Response]:
        """``follow``: to where a redirect leads; else it is no answer of an API."""
        try:
            outgoing = self._client.build_request(method, path, **request)
            answer = self._client.send(outgoing, stream=stream, follow_redirects=follow)
            try:
                if answer.is_redirect:
                    raise NotAnApi(str(answer.url), answer.status_code)
                if answer.is_error:
                    answer.read()
                    raise refusal(answer)
                yield answer
            finally:
                answer.close()
        except (httpx.TransportError, httpx.TooManyRedirects) as error:
            raise NotReachable(str(self._client.base_url), str(error) or type(error).__name__) from error


@contextmanager
def connected(settings: Settings) -> Iterator[Server]:
    """Raises NoKey, WrongUsage."""
    headers = {"authorization": f"Bearer {api_key(settings)}"}
    try:
        client = httpx.Client(base_url=settings.effective_url, headers=headers, timeout=TIMEOUT)
    except httpx.InvalidURL as error:
        raise WrongUsage(f"PAIRTUNE_URL: {settings.effective_url!r} is not a URL ({error}).") from error
    with client:
        yield Server(client)


def api_key(settings: Settings) -> str:
    local = settings.home / "local.key"
    try:
        key = settings.api_key or local.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise NoKey(str(local)) from error
    if not (key.isascii() and key.isprintable()):
        raise WrongUsage("The API key contains characters that no key has; check PAIRTUNE_API_KEY.")
    return key


def at(collection: str, name: str) -> str:
    """The path of one thing: whatever its name is made of, it is one part of the path."""
    if not name:
        raise WrongUsage("An id is empty; give one.")
    return f"{collection}/{quote(name, safe='')}"


def refusal(answer: httpx.Response) -> RequestFailed:
    """In the API's error shape, or whatever a proxy in front of it says."""
    request_id, wait = answer.headers.get("x-request-id"), answer.headers.get("retry-after", "")
    retry_after = float(wait) if wait.isdecimal() else 0.0
    try:
        error = answer.json()["error"]
        return RequestFailed(answer.status_code, dict(error), request_id, retry_after)
    except (ValueError, KeyError, TypeError):
        said = {"message": answer.text[:200] or answer.reason_phrase}
        return RequestFailed(answer.status_code, said, request_id, retry_after)

"""Which downloads go on at the object store itself: all but those of clients that a redirect would break."""

from __future__ import annotations

from collections.abc import Mapping


def may_redirect(request_headers: Mapping[str, str]) -> bool:
    """``request_headers``: those of a download.

    Not a page's: its browser would want the bucket to allow the page's origin. Not If-Range, which names our ETag and
    not the store's: the download would begin again. Not GNU Wget's before 2: it takes the key along to the other host.
    """
    return not (
        "origin" in request_headers
        or "if-range" in request_headers
        or request_headers.get("user-agent", "").startswith("Wget/1.")
    )

"""``metadata``: what a client notes on its own objects, in OpenAI's limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Key = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[Key, MetadataValue], Field(max_length=16)]

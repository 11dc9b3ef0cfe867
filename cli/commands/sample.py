"""``pairtune sample``: images that a base model, a fine-tuned one or a checkpoint draws, as PNG files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from cli.client.retry import RetryPolicy
from cli.client.server import JsonObject, Server, connected
from cli.command_options import AsJson, reports_errors
from cli.configured import settings
from cli.errors import GenerationFailed, RequestRefused
from cli.output import print_json, print_table, say

IMAGES = "/v1/images/generations"
POLL_SECONDS = 0.5
LONGEST_MODEL, LONGEST_PROMPT = 120, 72  # bytes of each in a file's name, which may have 255
Prompts = Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to draw; each is drawn by itself.")]


@reports_errors
def sample(
    model: Annotated[str, typer.Argument(help="A base, a fine-tuned model (ft:...), or a checkpoint of one.")],
    prompts: Prompts,
    n: Annotated[int | None, typer.Option("--n", help="Images of each prompt, 1 to 10.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="The base's own without it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first image; the others have the next ones.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strictly the prompt is followed.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What guidance leads away from.")] = None,
    adapter_scale: Annotated[float | None, typer.Option(help="How strongly a fine-tuned model's adapter acts.")] = None,
    to: Annotated[Path, typer.Option(help="A directory; made if there is none.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Draw images, and write them as PNG files named for model, prompt and seed."""
    options = {
        "n": n, "size": size, "seed": seed, "steps": steps, "guidance": guidance, "negative_prompt": negative_prompt,
        "adapter_scale": adapter_scale,
    }  # fmt: skip
    request = {"model": model, "response_format": "url"} | {k: v for k, v in options.items() if v is not None}
    to.mkdir(parents=True, exist_ok=True)
    written: list[JsonObject] = []
    with connected(settings()) as server:
        server.get("/v1/models", limit=1)  # a server that was never there is not waited for
        for prompt in prompts:
            retrying = server.with_retries(RetryPolicy(None))
            written += _written(retrying, prompt, generated(retrying, request | {"prompt": prompt}), to)
    if as_json:
        print_json(written)
    else:
        print_table(("image", "seed"), [(one["path"], one["seed"]) for one in written])


def generated(server: Server, request: JsonObject) -> JsonObject:
    """The generation once its images are there. Raises RequestRefused, GenerationFailed."""
    try:
        return server.post_once(IMAGES, request, key=str(uuid.uuid4()))
    except RequestRefused as refused:
        if refused.generation_id is None:
            raise
        if refused.status != 500:
            say(str(refused))
        return _followed(server, refused.generation_id)


def _followed(server: Server, generation_id: str) -> JsonObject:
    while (found := server.get(f"{IMAGES}/{generation_id}"))["status"] in ("queued", "running"):
        time.sleep(POLL_SECONDS)
    if found["error"] is not None and found["error"]["param"] is not None:  # the request was wrong
        raise RequestRefused(400, found["error"], None)
    if found["status"] != "succeeded":
        raise GenerationFailed(generation_id, found["error"]["message"])
    return found


def _written(server: Server, prompt: str, generation: JsonObject, to: Path) -> Iterator[JsonObject]:
    same = ("model", "size", "steps", "guidance", "adapter_scale")
    for index, image in enumerate(generation["data"]):
        path = free(to, stem(generation["model"], prompt, image["seed"]))
        server.download(f"{IMAGES}/{generation['id']}/images/{index}", path)
        described = {"path": str(path), "prompt": prompt, "seed": image["seed"], "generation": generation["id"]}
        yield described | {name: generation[name] for name in same}


def stem(model: str, prompt: str, seed: int) -> str:
    """Of a model's name the end is kept, where the job and the step stand."""
    of_model = _safe(model).encode()[-LONGEST_MODEL:].decode(errors="ignore")
    of_prompt = _safe(prompt).encode()[:LONGEST_PROMPT].decode(errors="ignore")
    return f"{of_model.strip('-')}_{of_prompt.strip('-') or 'image'}_{seed}"


def _safe(text: str) -> str:
    """Letters and digits of any script, and a hyphen for whatever stands between them."""
    return "-".join("".join(character if character.isalnum() else " " for character in text).split())


def free(folder: Path, name: str) -> Path:
    """Where no file is yet: drawing again with other options must not replace what is to be compared."""
    names = (f"{name}{'' if number == 1 else f'_{number}'}.png" for number in count(1))
    return next(path for path in map(folder.joinpath, names) if not path.exists())

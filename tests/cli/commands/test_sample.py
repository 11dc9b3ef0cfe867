"""``pairtune sample``: what is drawn at once, what takes longer, what cannot be drawn, and where files end up."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select
from typer.testing import CliRunner

from cli.commands import sample
from cli.main import app
from store.blobs.blobs import Blobs
from store.generations import generation_leases
from store.hints import Hints
from store.settings import Settings, settings
from store.tables.generation import Generation
from tests.api.polling import until
from tests.api.serving import Live, serving
from tests.cli.front import in_front_of
from tests.cli.test_commands import Run
from tests.trainer.tiny_sdxl import save_base
from worker.generation.generation import generate
from worker.resources import Resources

pytestmark = pytest.mark.integration
WAIT = 0.3  # seconds that the API waits for images


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, valkey_url: str) -> Iterator[Live]:
    """With a base that can be drawn from."""
    home = tmp_path_factory.mktemp("live")
    save_base(home / "tiny")
    with serving(home, postgres_url, valkey_url, images_wait_seconds=WAIT) as live:
        yield live


@pytest.fixture
def run(server: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("PAIRTUNE_URL", server.url)
    monkeypatch.setenv("PAIRTUNE_API_KEY", server.tenant.api_key)
    monkeypatch.setenv("PAIRTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sample, "POLL_SECONDS", 0.05)
    settings.cache_clear()
    runner = CliRunner()
    yield lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
    settings.cache_clear()


Painting = Callable[[Live, str], None]


def waiting_for_paint(live: Live) -> list[str]:
    with live.sessions() as session:
        return list(session.scalars(select(Generation.id).where(Generation.status == "queued")))


def taken(live: Live, generation_id: str) -> generation_leases.GenerationLease:
    with live.sessions.begin() as session:
        owned = generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
    assert owned is not None
    return owned


def paint(live: Live, generation_id: str) -> None:
    """The images' bytes name their seeds."""
    owned = taken(live, generation_id)
    blobs = Blobs(f"file://{live.home / 'blobs'}")
    seeds = [owned.spec["seed"] + index for index in range(owned.spec["n"])]
    made = [blobs.put_bytes(f"seed {seed}".encode()) for seed in seeds]
    images = [{"sha256": blob.sha256, "bytes": blob.bytes} for blob in made]
    result = {"images": images, "width": 32, "height": 16, "guidance": 5.0, "seconds": 1.5}
    with live.sessions.begin() as session:
        generation_leases.succeed(session, owned, result=result)


@dataclass
class Painter:
    """Does ``work`` with what is queued, until the test ends."""

    live: Live
    work: Painting = paint

    def __post_init__(self) -> None:
        self.done: list[str] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.ended.wait(0.02):
            for generation_id in waiting_for_paint(self.live):
                self.work(self.live, generation_id)
                self.done.append(generation_id)


@pytest.fixture
def painter(server: Live) -> Iterator[Painter]:
    painter = Painter(server)
    yield painter
    painter.ended.set()
    painter.thread.join()


def test_each_prompt_is_generated_and_written_under_its_name(run: Run, painter: Painter, tmp_path: Path) -> None:
    to = tmp_path / "new" / "folder"
    result = run("sample", "tiny", "a cat", "../Étoile: 星!", "--n", 2, "--seed", 7, "--to", to)
    assert result.exit_code == 0, result.output
    names = ["tiny_a-cat_7.png", "tiny_a-cat_8.png", "tiny_Étoile-星_7.png", "tiny_Étoile-星_8.png"]
    assert result.stdout == "".join(f"{to / name}\t{name[-5]}\n" for name in names)
    assert {path.name: path.read_text() for path in to.iterdir()} == {name: f"seed {name[-5]}" for name in names}
    again = json.loads(run("sample", "tiny", "a cat", "--seed", 7, "--to", to, "--json").stdout)
    assert again == [
        {
            "path": str(to / "tiny_a-cat_7_2.png"), "prompt": "a cat", "seed": 7, "generation": painter.done[-1],
            "model": "tiny", "size": "32x16", "steps": 25, "guidance": 5.0, "adapter_scale": 1.0,
        }
    ]  # fmt: skip
    assert (to / "tiny_a-cat_7.png").read_text() == "seed 7"  # never replaced


def test_every_option_reaches_the_generation(run: Run, painter: Painter, server: Live, tmp_path: Path) -> None:
    given = {
        "n": 3, "size": "48x16", "seed": 11, "steps": 4, "guidance": 2.5, "negative_prompt": "a dog",
        "adapter_scale": 0.5,
    }  # fmt: skip
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
    assert run("sample", "tiny", "a cat", *options, "--to", tmp_path).exit_code == 0
    with server.sessions() as session:
        spec: dict[str, Any] = session.get_one(Generation, painter.done[-1]).spec
    del given["size"]
    assert {name: spec[name] for name in given} == given
    assert (spec["width"], spec["height"]) == (48, 16)


@pytest.mark.parametrize("begun", [False, True], ids=["503", "504"])
def test_what_takes_longer_than_a_request_waits_is_followed_by_its_id(
    run: Run, server: Live, painter: Painter, tmp_path: Path, begun: bool
) -> None:
    reported = threading.Event()

    def late(live: Live, generation_id: str) -> None:
        """Only when the request was answered, and read by its id."""
        if begun:
            with live.sessions.begin() as session:
                generation_leases.claim(session, generation_id, worker="w", lease_seconds=60)
        requested = f'"path": "/v1/images/generations/{generation_id}"'
        until(lambda: requested in live.log.read_text())
        reported.set()
        if begun:
            with live.sessions.begin() as session:
                row = session.get_one(Generation, generation_id)
                owned = generation_leases.GenerationLease(generation_id, row.attempt, row.spec, row.weights)
                generation_leases.give_back(session, owned)
        paint(live, generation_id)

    painter.work = late
    result = run("sample", "tiny", "a cat", "--seed", 5, "--to", tmp_path)
    assert result.exit_code == 0, result.output
    assert reported.is_set()
    assert (
        "The generation is still running." if begun else "No worker has started this generation yet."
    ) in result.stderr
    assert (tmp_path / "tiny_a-cat_5.png").read_text() == "seed 5"


@pytest.mark.parametrize(("param", "code"), [(None, 5), ("size", 4)])
@pytest.mark.parametrize("late", [False, True])
def test_what_cannot_be_generated_says_why_and_leaves_no_file(
    run: Run, server: Live, painter: Painter, tmp_path: Path, param: str | None, code: int, late: bool
) -> None:
    def refuse(live: Live, generation_id: str) -> None:
        requested = f'"path": "/v1/images/generations/{generation_id}"'
        until(lambda: not late or requested in live.log.read_text())
        owned = taken(live, generation_id)
        with live.sessions.begin() as session:
            generation_leases.fail(session, owned, code="out_of_memory", message="Out of memory", param=param)

    painter.work = refuse
    result = run("sample", "tiny", "a cat", "--to", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert "Out of memory" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_request_whose_answer_was_lost_is_not_generated_twice(
    run: Run, server: Live, painter: Painter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.client.retry.FIRST_PAUSE", 0.01)
    with in_front_of(server.url) as front:
        monkeypatch.setenv("PAIRTUNE_URL", front.url)
        settings.cache_clear()
        front.fates = ["pass", "lose", "pass", "drop"]
        result = run("sample", "tiny", "a cat", "--seed", 3, "--to", tmp_path)
        assert front.fates == []
        assert [one.split()[0] for one in front.requests] == ["GET", "POST", "POST", "GET", "GET"]
    assert result.exit_code == 0, result.output
    assert len(painter.done) == 1
    assert [path.read_text() for path in tmp_path.iterdir() if path.is_file()] == ["seed 3"]


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (("gpt", "a cat"), 4, "model_not_found"),
        (("tiny", "a cat", "--n", 11, "--size", "7x7"), 4, "2 errors in the request"),
        (("tiny", "a cat", "--n", "many"), 2, "valid integer"),
        (("tiny",), 2, "PROMPT"),
    ],
)
def test_a_request_that_is_wrong_is_reported(
    run: Run, tmp_path: Path, wrong: tuple[object, ...], code: int, said: str
) -> None:
    result = run("sample", *wrong, "--to", tmp_path)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


def test_a_name_fits_a_file_whatever_it_is_made_from() -> None:
    model = f"ft:emoji-xl:{'ü' * 64}:{'0' * 32}:ckpt-step-150"
    name = sample.stem(model, "星" * 4000, 2**31 - 1)
    assert len(f"{name}_99.png.partial".encode()) <= 255
    assert f"{'0' * 32}-ckpt-step-150_星" in name
    assert sample.stem("../../etc", "/\0..\n", 1) == "etc_image_1"


def test_a_base_that_is_there_is_really_generated_from(
    run: Run, server: Live, painter: Painter, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    deployment = Settings(home=server.home, broker_url=valkey_url)
    blobs = Blobs(f"file://{server.home / 'blobs'}")
    resources = Resources(deployment, server.sessions, blobs, Hints(valkey_url), "test")
    painter.work = lambda _, generation_id: generate(resources, generation_id, stopping=lambda: False)
    result = run("sample", "tiny", "a cat", "--size", "24x40", "--steps", 2, "--seed", 1, "--to", tmp_path)
    assert result.exit_code == 0, result.output
    with Image.open(io.BytesIO((tmp_path / "tiny_a-cat_1.png").read_bytes())) as image:
        assert (image.format, image.size) == ("PNG", (24, 40))

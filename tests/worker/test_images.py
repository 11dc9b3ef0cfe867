"""The unmodified openai SDK, the API, a worker and the real programs: from pairs to images of the trained adapter."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from PIL import Image

from store.tables.generation import Generation
from store.tables.project import Project
from store.tenants import api_keys
from tests.api.conftest import open_client
from tests.store.rows import read_job
from tests.trainer.tiny_sdxl import PROMPTS
from tests.worker.conftest import NewJob
from tests.worker.studio import studio
from worker.resources import Resources
from worker.training.supervisor import supervise

pytestmark = pytest.mark.integration
STRONG = {"preset": "style", "learning_rate": 0.05}


@pytest.fixture
def sdk(resources: Resources, project_id: str, tiny_base: Path, tmp_path: Path) -> Iterator[OpenAI]:
    bases = tmp_path / "bases.toml"
    bases.write_text(f'[[base]]\nname = "tiny"\nfamily = "sdxl"\nsource = "{tiny_base}"\n')
    with resources.sessions.begin() as session:
        key = api_keys.create(session, session.get_one(Project, project_id), "for images")
    settings = resources.settings.model_copy(update={"bases_file": bases})
    with (
        studio(resources),
        open_client(settings) as http,
        OpenAI(base_url="http://testserver/v1", api_key=key, http_client=http, max_retries=0) as client,
    ):
        yield client


def test_the_sdks_own_retries_wait_for_the_same_images(
    resources: Resources, sdk: OpenAI, tiny_base: Path, tmp_path: Path
) -> None:
    settings = resources.settings.model_copy(update={"bases_file": tmp_path / "bases.toml", "images_wait_seconds": 0.5})
    with open_client(settings) as impatient:
        client = sdk.with_options(http_client=impatient, max_retries=20)
        answer = client.images.generate(model="tiny", prompt="a cat", extra_body={"steps": 2})
    assert answer.data is not None
    assert len(answer.data) == 1
    with resources.sessions() as session:
        [row] = session.query(Generation)
        assert row.spec["seed"] == (answer.model_extra or {})["seed"]  # chosen once


def decoded(content: str | None) -> Image.Image:
    assert content is not None
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_base_fine_tuned_model_and_checkpoint_generate_by_their_names(
    resources: Resources, sdk: OpenAI, new_job: NewJob
) -> None:
    job_id = new_job(steps=4, every=2, hyperparameters={"max_steps": 4, "batch_size": 2} | STRONG)
    supervise(resources, job_id, stopping=lambda: False)
    model = read_job(resources.sessions, job_id).fine_tuned_model
    assert model is not None
    checkpoints = [one.fine_tuned_model_checkpoint for one in sdk.fine_tuning.jobs.checkpoints.list(job_id)]
    assert checkpoints == [f"{model}:ckpt-step-{step}" for step in (4, 2)]

    def draw(name: str, **ours: object) -> str:
        answer = sdk.images.generate(model=name, prompt=PROMPTS[0], extra_body={"seed": 7, "steps": 3} | ours)
        assert (answer.output_format, answer.size) == ("png", "32x32")
        assert answer.model_extra is not None
        assert {name: answer.model_extra[name] for name in ("seed", "steps", "model")} == {
            "seed": 7,
            "steps": 3,
            "model": name,
        }
        assert answer.data is not None
        [image] = answer.data
        assert decoded(image.b64_json).size == (32, 32)
        return str(image.b64_json)

    base, tuned, first = draw("tiny"), draw(model), draw(checkpoints[-1])
    assert draw(model) == tuned  # the same seed
    assert len({base, tuned, first, draw(model, adapter_scale=0.5), draw(model, negative_prompt="a dog")}) == 5


def test_urls_hold_the_images_for_whoever_has_a_key_of_the_project(sdk: OpenAI) -> None:
    answer = sdk.images.generate(
        model="tiny", prompt="a cat", n=2, size="40x24", response_format="url", extra_body={"steps": 2}
    )
    assert answer.data is not None
    assert [image.b64_json for image in answer.data] == [None, None]
    first, second = (sdk._client.get(str(image.url), headers=sdk.auth_headers) for image in answer.data)
    assert first.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(first.content)).size == (40, 24)
    assert first.content != second.content
    known = {"if-none-match": first.headers["etag"]} | sdk.auth_headers
    assert sdk._client.get(str(answer.data[0].url), headers=known).status_code == 304
    assert sdk._client.get(str(answer.data[0].url)).status_code == 401


def test_a_size_that_the_base_cannot_have_is_a_bad_request(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="size: given 42x24; sides of tiny are multiples of 4") as bad:
        sdk.images.generate(model="tiny", prompt="a cat", size="42x24")
    assert (bad.value.code, bad.value.param) == ("invalid_size", "size")

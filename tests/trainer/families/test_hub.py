"""Downloads of bases: which files come, what is reported meanwhile, and what happens without the hub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.families.bases import SAVE_BASE
from tests.trainer.families.hub import REVISION, Hub, serving
from trainer.families import open_family
from trainer.families.files import chosen_files, variant
from trainer.families.hub import download
from trainer.runtime.errors import BadRun, BaseUnavailable, Interrupted
from trainer.spec.family_facts import FamilyName
from trainer.spec.run import Base

pytestmark = pytest.mark.unit

COMPONENTS = ("tokenizer", "text_encoder", "text_encoder_3", "unet", "vae")
CONFIGURATIONS = [
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder_3/config.json",
    "unet/config.json",
    "vae/config.json",
]
PLAIN = [
    "text_encoder/model.safetensors",
    "text_encoder_3/model-00001-of-00002.safetensors",
    "text_encoder_3/model-00002-of-00002.safetensors",
    "text_encoder_3/model.safetensors.index.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]
FP16 = [
    "text_encoder/model.fp16.safetensors",
    "text_encoder_3/model.fp16-00001-of-00002.safetensors",
    "text_encoder_3/model.fp16-00002-of-00002.safetensors",
    "text_encoder_3/model.safetensors.index.fp16.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]
OTHERS = [
    "README.md",
    "sd_xl_base.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors.index.non_ema.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_flax_model.msgpack",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "safety_checker/model.safetensors",
]


def repository(*names: str) -> dict[str, bytes]:
    return {name: f"content of {name}".encode() for name in ("model_index.json", *names)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with serving(Hub()) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{served.port}")
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"http://127.0.0.1:{served.port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        yield served


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("half", "weights"), [(True, FP16), (False, PLAIN)])
def test_one_set_of_weights_comes_and_nothing_else(hub: Hub, half: bool, weights: list[str]) -> None:
    hub.files["org/model"] = repository(*CONFIGURATIONS, *PLAIN, *FP16, *OTHERS)
    folder = download("org/model", REVISION, COMPONENTS, half=half)
    wanted = {"model_index.json", *CONFIGURATIONS, *weights}
    assert files_in(folder) == wanted
    assert sorted(hub.sent) == sorted(wanted)
    assert hub.sent[-1] == "model_index.json"
    assert all((folder / name).read_text() == f"content of {name}" for name in wanted)
    download("org/model", REVISION, COMPONENTS, half=half)
    assert len(hub.sent) == len(wanted)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("only", [PLAIN, FP16])
def test_the_only_set_there_is_comes_whatever_the_precision(hub: Hub, half: bool, only: list[str]) -> None:
    hub.files["org/model"] = repository(*CONFIGURATIONS, *only, *OTHERS)
    assert files_in(download("org/model", REVISION, COMPONENTS, half=half)) == {
        "model_index.json",
        *CONFIGURATIONS,
        *only,
    }


def test_a_component_has_its_own_choice(hub: Hub) -> None:
    hub.files["org/model"] = repository(*CONFIGURATIONS, *PLAIN, "unet/diffusion_pytorch_model.fp16.safetensors")
    folder = download("org/model", REVISION, COMPONENTS, half=True)
    assert variant(folder / "unet", half=True) == "fp16"
    assert not (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert variant(folder / "vae", half=True) is None


@pytest.mark.parametrize(
    ("names", "half", "chosen"),
    [
        (["model.safetensors", "model.fp16.safetensors"], True, ["model.fp16.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], False, ["model.safetensors"]),
        (
            ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors", "model.safetensors"],
            True,
            ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"],
        ),
        (["model.fp16-00001-of-00002.safetensors", "model.safetensors"], True, ["model.safetensors"]),
        (["model.non_ema.safetensors", "model.ema.safetensors"], False, []),
        (
            ["model.safetensors.index.json", "model.safetensors.index.fp16.json", "model.fp16.safetensors"],
            False,
            ["model.safetensors.index.fp16.json", "model.fp16.safetensors"],
        ),
        (["config.json", "spiece.model", "tokenizer.json"], True, ["config.json", "spiece.model", "tokenizer.json"]),
    ],
)
def test_of_several_sets_a_complete_one_is_chosen(names: list[str], half: bool, chosen: list[str]) -> None:
    assert chosen_files(names, half=half) == chosen


def test_progress_counts_megabytes_of_all_files_and_comes_while_a_file_is_on_its_way(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10**6)
    weights = {"unet/diffusion_pytorch_model.safetensors": 5 * 10**6, "vae/diffusion_pytorch_model.safetensors": 10**6}
    hub.files["org/model"] = repository("unet/config.json") | {name: bytes(size) for name, size in weights.items()}
    reports: list[tuple[int, int]] = []
    threads = set()

    def progress(done: int, total: int) -> None:
        reports.append((done, total))
        threads.add(threading.get_ident())

    download("org/model", REVISION, COMPONENTS, half=True, progress=progress)
    assert {total for _, total in reports} == {6}
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert {done for done, _ in reports} == set(range(7))
    reports.clear()
    download("org/model", REVISION, COMPONENTS, half=True, progress=progress)
    assert reports[-1] == (6, 6)


def test_a_stop_ends_a_download_and_the_next_goes_on_with_the_files_that_are_here(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10**6)
    monkeypatch.setattr("trainer.families.hub.PARALLEL_DOWNLOADS", 1)
    weights = {f"{name}/diffusion_pytorch_model.safetensors": name[:1].encode() * 3 * 10**6 for name in ("unet", "vae")}
    hub.files["org/model"] = weights | repository("unet/config.json")

    def stop(done: int, _total: int) -> None:
        if done == 4:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        download("org/model", REVISION, COMPONENTS, half=True, progress=stop)
    assert "model_index.json" not in hub.sent
    folder = download("org/model", REVISION, COMPONENTS, half=True)
    assert files_in(folder) == {*weights, "unet/config.json", "model_index.json"}
    assert hub.sent.count("unet/diffusion_pytorch_model.safetensors") == 1
    assert hub.sent.count("vae/diffusion_pytorch_model.safetensors") == 2


def test_without_the_hub_an_earlier_complete_download_is_taken(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["org/model"] = repository(*CONFIGURATIONS, *FP16)
    folder = download("org/model", REVISION, COMPONENTS, half=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert download("org/model", REVISION, COMPONENTS, half=True) == folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert download("org/model", REVISION, COMPONENTS, half=True) == folder
    (folder / FP16[2]).unlink()
    with pytest.raises(BaseUnavailable):
        download("org/model", REVISION, COMPONENTS, half=True)


def test_a_repository_of_something_else_is_refused(hub: Hub) -> None:
    hub.files["org/model"] = {"README.md": b"nothing"}
    with pytest.raises(BadRun, match="no diffusers model") as raised:
        download("org/model", REVISION, COMPONENTS, half=True)
    assert raised.value.code == "base_not_found"


@pytest.mark.parametrize("family", SAVE_BASE)
def test_a_base_of_every_family_trains_from_the_hub(hub: Hub, tmp_path: Path, family: FamilyName) -> None:
    local = SAVE_BASE[family](tmp_path / "base")
    hub.files["org/model"] = repository(*OTHERS[:4]) | {name: (local / name).read_bytes() for name in files_in(local)}
    reports: list[tuple[int, int]] = []
    base = Base(name="tiny", family=family, source="org/model", revision=REVISION)
    opened = open_family(base, progress=lambda done, total: reports.append((done, total)))
    assert reports
    assert not set(hub.sent) & set(OTHERS)
    cpu = torch.device("cpu")
    (prompt,) = opened.load_encoders(cpu).encode_prompts(["a cat"])
    (expected,) = (
        open_family(base.model_copy(update={"source": str(local)})).load_encoders(cpu).encode_prompts(["a cat"])
    )
    assert all(torch.equal(prompt[name], expected[name]) for name in expected)
    assert opened.load_denoiser(cpu).dtype == torch.float32

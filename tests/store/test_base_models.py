from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from store.base_models import RegisteredBase, find_base, read_bases
from store.errors import BasesInvalid, ModelNotFound
from trainer.spec.family_facts import FamilyName

pytestmark = pytest.mark.unit

LOCAL = '[[base]]\nname = "local"\nfamily = "sdxl"\nsource = "./model"\n'
HUB = '[[base]]\nname = "hub"\nfamily = "sdxl"\nsource = "org/model"\n'


def write(folder: Path, text: str) -> Path:
    (folder / "model").mkdir(exist_ok=True)
    path = folder / "bases.toml"
    path.write_text(text)
    return path


def test_a_directory_is_taken_from_the_lists_own_folder_and_a_hub_model_is_pinned(tmp_path: Path) -> None:
    bases = read_bases(write(tmp_path, LOCAL + HUB + 'revision = "abc123"\n'))
    assert find_base(bases, "local") == RegisteredBase("local", "sdxl", str(tmp_path / "model"), None)
    assert find_base(bases, "hub") == RegisteredBase("hub", "sdxl", "org/model", "abc123")
    with pytest.raises(ModelNotFound):
        find_base(bases, "other")


@pytest.mark.parametrize("family", get_args(FamilyName))
def test_a_base_of_every_family_that_is_trained_can_be_listed(tmp_path: Path, family: str) -> None:
    assert read_bases(write(tmp_path, LOCAL.replace("sdxl", family)))["local"].family == family


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[base]\n", "Expected"),
        ("", "base"),
        ('[base]\nname = "x"\n', "base"),
        (LOCAL + "surprise = 1\n", "surprise"),
        (LOCAL.replace("sdxl", "sd9"), "family"),
        (LOCAL.replace("./model", "./nowhere"), "there is no directory"),
        (HUB, "needs a revision"),
        (LOCAL + LOCAL, "named twice: local"),
        (LOCAL + "memory_gib = 0\n", "memory_gib"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BasesInvalid, match=reason):
        read_bases(write(tmp_path, text))


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bases.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BasesInvalid):
        read_bases(tmp_path / "bases.toml")


def test_a_base_may_say_how_much_device_memory_its_jobs_need(tmp_path: Path) -> None:
    bases = read_bases(write(tmp_path, LOCAL + "memory_gib = 24\n" + HUB + 'revision = "abc123"\n'))
    assert (bases["local"].memory_gib, bases["hub"].memory_gib) == (24, None)


def test_a_base_may_be_one_file_with_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(b"")
    local = LOCAL.replace("./model", "./one.safetensors") + 'config = "./model"\n'
    hub = HUB.replace("org/model", "org/model/one.safetensors") + 'revision = "abc123"\n'
    bases = read_bases(write(tmp_path, local + hub))
    assert bases["local"].pinned() == {
        "name": "local",
        "family": "sdxl",
        "source": str(tmp_path / "one.safetensors"),
        "revision": None,
        "config": str(tmp_path / "model"),
    }
    assert "config" not in bases["hub"].pinned()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOCAL + 'config = "./model"\n', "config is for a source that is one"),
        (LOCAL.replace("./model", "./no.safetensors"), "there is no file"),
        (HUB.replace("org/model", "model.safetensors"), "owner/name/file"),
        (HUB.replace("org/model", "org/model/one.safetensors"), "needs a revision"),
        (HUB.replace("org/model", "a/b/c.safetensors") + 'revision = "a"\nconfig = "./no"\n', "config"),
    ],
)
def test_a_base_of_one_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BasesInvalid, match=reason):
        read_bases(write(tmp_path, text))

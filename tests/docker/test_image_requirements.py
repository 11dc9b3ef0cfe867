"""Choosing an image's direct dependencies."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "docker" / "image_requirements.py"

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_requirements", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("torch==2.13.0", "torch"),
        ("psycopg[binary]>=3.2", "psycopg"),
        ("Python_Multipart", "python-multipart"),
        ("uvloop; sys_platform != 'win32'", "uvloop"),
    ],
)
def test_a_requirement_is_known_by_its_normalised_name(script: ModuleType, requirement: str, name: str) -> None:
    assert script.distribution(requirement) == name


def test_what_is_left_out_goes_and_the_rest_keeps_its_order_and_extras(script: ModuleType) -> None:
    direct = ["celery[redis]", "torch==2.13.0", "pillow"]
    assert script.image_requirements(direct, {"torch"}) == ["celery[redis]", "pillow"]


def test_leaving_out_what_nobody_asks_for_is_an_error(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="torchvision"):
        script.image_requirements(["torch==2.13.0"], {"torch", "torchvision"})


@pytest.mark.parametrize("arguments", [[], ["gpu"], ["api", "worker"]])
def test_an_unknown_image_is_refused_with_the_known_ones(
    script: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(arguments) == 2
    assert "api|worker" in capsys.readouterr().err

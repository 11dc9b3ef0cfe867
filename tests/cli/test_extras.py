"""What a command says where a package of an extra is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli.command_options import reports_errors
from cli.extras import MissingExtra, missing_extra, require_extras

pytestmark = pytest.mark.unit

METADATA = """Metadata-Version: 2.4
Name: pairtune
Version: 9.9
Provides-Extra: worker
Provides-Extra: server
Requires-Dist: typer
Requires-Dist: absent-driver[binary]>=3; extra == "worker"
Requires-Dist: pydantic; extra == "worker"
Requires-Dist: pairtune[worker]; extra == "server"
Requires-Dist: absent-web; extra == "server"
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pairtune whose extras name distributions that exist nowhere."""
    folder = tmp_path / "pairtune-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)


def test_what_an_extra_lacks_is_named_with_the_command_that_brings_it() -> None:
    with pytest.raises(MissingExtra) as caught:
        require_extras("server")
    said = "This command needs absent-driver, absent-web: run pip install 'pairtune[server]'."
    assert (str(caught.value), caught.value.exit_code) == (said, 1)


def test_a_long_list_of_packages_is_cut_and_names_each_once() -> None:
    absent = {"server": ["a", "b"], "trainer": ["b", "c", "d", "e"]}
    said = "This command needs a, b, c and 2 more packages: run pip install 'pairtune[server,trainer]'."
    assert str(MissingExtra(absent)) == said


def test_an_extra_is_required_only_where_it_lacks_something() -> None:
    with pytest.raises(MissingExtra, match=r"'pairtune\[worker\]'"):
        require_extras("unheard-of", "worker")
    require_extras("unheard-of")


def test_a_missing_module_is_traced_to_the_extra_that_brings_it_itself() -> None:
    missing = missing_extra(ModuleNotFoundError("no", name="absent_driver.pool"))
    assert str(missing) == "This command needs absent-driver: run pip install 'pairtune[worker]'."


@pytest.mark.parametrize("name", ["cli.gone", "typer", None])
def test_a_missing_module_of_no_extra_stays_an_error(name: str | None) -> None:
    assert missing_extra(ModuleNotFoundError("no", name=name)) is None


def test_a_command_says_it_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors
    def command() -> None:
        raise ModuleNotFoundError("no", name="absent_web")

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said == "This command needs absent-web: run pip install 'pairtune[server]'."


def test_a_command_hides_no_fault_of_the_program() -> None:
    @reports_errors
    def command() -> None:
        raise ModuleNotFoundError("no", name="cli.gone")

    with pytest.raises(ModuleNotFoundError):
        command()

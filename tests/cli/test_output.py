"""Tables and answers at any width and in a pipe: no id is ever cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli import output

pytestmark = pytest.mark.unit
JOB = "ftjob-0198c1f2a3b47c5d8e6f708192a3b4c5"
MODEL = f"ft:emoji-xl:{'a-long-suffix' * 4}:0198c1f2a3b47c5d8e6f708192a3b4c5"


class Terminal:
    """What was printed to one of that width."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
        self._written = io.StringIO()
        monkeypatch.setattr(
            output, "console", Console(file=self._written, force_terminal=True, width=width, color_system=None)
        )

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._written.getvalue().splitlines()]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_table_is_never_cut_or_folded(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal(monkeypatch, width)
    output.print_table(("model", "job", "why"), [(MODEL, JOB, "星 [bold]"), (JOB, None, "two\nlines")])
    assert terminal.lines == [
        f"{'model':{len(MODEL)}}  {'job':{len(JOB)}}  why",
        f"{MODEL}  {JOB}  星 [bold]",
        f"{JOB:{len(MODEL)}}  {'':{len(JOB)}}  two lines",
    ]


def test_in_a_pipe_a_row_is_a_line_of_cells_between_tabs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output.print_table(("model", "job", "why"), [(MODEL, None, "two\nlines\tof it"), (JOB, 3, "[bold]")])
    output.print_table(("none",), [])
    assert capsys.readouterr().out == f"{MODEL}\t\ttwo lines of it\n{JOB}\t3\t[bold]\n"


def test_an_answer_is_one_line_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 40)
    text = f"{MODEL}: `pairtune download {JOB}` fetches it."
    output.notify(text)
    assert terminal.lines == [text]

from __future__ import annotations

import pytest

from trainer.program import unexpected
from trainer.runtime.errors import Interrupted
from trainer.runtime.event_stream import PhaseReporter, heartbeat_check
from trainer.runtime.signals import StopRequest
from trainer.spec.events import Event, Failed, PhaseProgress

pytestmark = pytest.mark.unit


def test_long_work_reports_once_a_second_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Event] = []
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    phases = PhaseReporter(reported.append)
    check = heartbeat_check(phases, StopRequest())
    check()  # no phase, nothing to count
    phases.enter("sampling")
    phases.progress(1, 4)
    for clock[0] in (0.5, 1.25, 2.0, 2.5):
        check()
    assert reported[1:] == [PhaseProgress(phase="sampling", done=1, total=4)] * 2
    phases.enter("exporting")
    clock[0] = 10.0
    check()  # what the phase before had counted is not reported as this one's
    assert len(reported) == 4


def test_long_work_is_broken_off_by_a_stop() -> None:
    stop = StopRequest()
    check = heartbeat_check(PhaseReporter(lambda _: None), stop)
    stop.requested = True
    with pytest.raises(Interrupted):
        check()


def test_what_nobody_foresaw_is_reported_and_its_traceback_printed(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    try:
        raise KeyError("a row")
    except KeyError as error:
        unexpected(events.append)(type(error), error, error.__traceback__)
    assert events == [Failed(code="internal_error", message="KeyError: 'a row'")]
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.rstrip().endswith("KeyError: 'a row'")

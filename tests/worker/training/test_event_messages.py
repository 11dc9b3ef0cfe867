from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from store.jobs.job_leases import JobLease
from trainer.spec.events import (
    BetaChosen,
    CheckpointWritten,
    DataPrepared,
    Done,
    Event,
    MemoryPlanned,
    Metrics,
    MismatchMeasured,
    Phase,
    PhaseName,
    Progress,
    SampleWritten,
    Started,
    StoppedEarly,
    Warned,
)
from trainer.spec.resolved import Resolved
from worker.runtime.trainer_output import SHOWN_LINES, last_lines
from worker.training import conclusion, event_messages
from worker.training.attempt import Attempt
from worker.training.conclusion import describe_exit

pytestmark = pytest.mark.unit


def progress(step: int, max_steps: int) -> Progress:
    return Progress(
        step=step,
        max_steps=max_steps,
        loss=0.5,
        chosen_loss=0.1,
        rejected_loss=0.3,
        margin=0.2,
        grad_norm=1.0,
        learning_rate=1e-4,
        pairs_per_second=8.0,
        eta_seconds=12.4,
        peak_memory_bytes=1024,
    )


METRICS = Metrics(
    step=3,
    objective=0.7,
    chosen_loss=0.1,
    rejected_loss=0.2,
    margin=0.1,
    implicit_accuracy=0.75,
    implicit_accuracy_low=0.5,
    implicit_accuracy_high=0.9,
    base_implicit_accuracy=0.25,
    base_chosen_loss=0.3,
    base_rejected_loss=0.2,
    reference_corrected_accuracy=1.0,
    reference_corrected_accuracy_low=0.5,
    reference_corrected_accuracy_high=1.0,
    objective_change=-0.1,
    objective_change_low=-0.2,
    objective_change_high=0.0,
    chosen_loss_change=-0.2,
    chosen_loss_change_low=-0.3,
    chosen_loss_change_high=-0.1,
    margin_change=0.2,
    margin_change_low=0.1,
    margin_change_high=0.3,
    bins=(),
    pairs=4,
    draws=2,
)


def test_progress_and_metrics_carry_the_names_of_openais_clients() -> None:
    reported = event_messages.to_job_event(progress(5, 10))
    assert reported is not None
    assert reported.message == "Step 5/10: loss 0.5000, margin +0.2000, 8.0 pairs/s, 12 s left."
    assert (reported.type, (reported.data or {})["train_loss"], (reported.data or {})["total_steps"]) == (
        "metrics",
        0.5,
        10,
    )
    measured = event_messages.to_job_event(METRICS)
    assert measured is not None
    assert (measured.data or {})["full_valid_loss"] == 0.7
    assert "implicit accuracy 0.75 (base 0.25)" in measured.message


def test_a_method_without_rejected_images_reports_no_margin() -> None:
    alone = progress(5, 10).model_copy(update={"margin": None, "rejected_loss": None})
    reported = event_messages.to_job_event(alone)
    assert reported is not None
    assert reported.message == "Step 5/10: loss 0.5000, 8.0 pairs/s, 12 s left."
    assert (reported.data or {})["margin"] is None


def test_the_result_is_described_from_a_checkpoints_metrics() -> None:
    reported = event_messages.to_job_event(METRICS.model_copy(update={"final": True}))
    assert reported is not None
    assert reported.message.startswith("Result, from step 3, on 4 held-out pairs: implicit accuracy 0.75 (base 0.25)")


STARTED = Started(
    hyperparameters=Resolved(
        method="sft",
        max_steps=100,
        effective_batch_size=8,
        batch_size="auto",
        learning_rate=1e-4,
        lr_scheduler="cosine",
        warmup_steps=5,
        weight_decay=0.01,
        max_grad_norm=1.0,
        prompt_dropout=0.1,
    ),
    training_pairs=12,
    validation_pairs=1,
    device="cpu",
    resumed_from_step=40,
)
DATA = DataPrepared(
    training_pairs=12,
    validation_pairs=1,
    drawn_images=1,
    buckets={"640x384": 2, "512x512": 10},
    upscaled_pairs=3,
    largest_crop=0.125,
)
MEMORY = MemoryPlanned(effective_batch_size=8, batch_size=2, gradient_checkpointing=True, streamed=True, measured=True)
MISMATCH = MismatchMeasured(similarity=0.871, low=0.85, high=0.9, images=16, features="statistics", seconds=3.0)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            STARTED,
            "Training by sft on 12 pairs (1 held out) on cpu, going on from step 40: 100 steps of 8 pairs.",
        ),
        (
            DATA,
            "Training pairs by size: 10 at 512x512, 2 at 640x384. The base sampled 1 image. "
            "3 pairs had to be enlarged. At most 12% of an image is cut off.",
        ),
        (
            DATA.model_copy(
                update={
                    "drawn_images": 0,
                    "upscaled_pairs": 0,
                    "largest_crop": 0.0,
                    "buckets": {f"{side}x{side}": 1 for side in range(64, 72)},
                }
            ),
            "Training pairs by size: 1 at 64x64, 1 at 65x65, 1 at 66x66, 1 at 67x67, 1 at 68x68, 1 at 69x69 and "
            "2 other sizes.",
        ),
        (MEMORY, "Steps of 8 pairs, 2 in a forward pass with gradient checkpointing and streamed pairs."),
        (
            MEMORY.model_copy(update={"gradient_checkpointing": False, "streamed": False}),
            "Steps of 8 pairs, 2 in a forward pass.",
        ),
        (
            MISMATCH,
            "The base's own images resemble the chosen ones by 0.87 (95% interval 0.85 to 0.90; "
            "16 images, statistics).",
        ),
        (BetaChosen(beta=64.0, reason="preset style"), "beta is 64: preset style."),
        (
            StoppedEarly(step=90, best_step=60, patience=3),
            "Stopped at step 90: the held-out objective has not been lower than at step 60 for 3 checkpoints.",
        ),
        (Phase(phase="drawing", previous="loading", seconds=1.0), "Sampling images with the base model."),
    ],
)
def test_what_the_trainer_decides_and_does_is_reported_in_words_and_numbers(event: Event, message: str) -> None:
    reported = event_messages.to_job_event(event)
    assert reported is not None
    assert (reported.message, reported.level, reported.type) == (message, "info", "message")
    assert reported.data == event.model_dump(mode="json")


def test_samples_are_shown_by_the_file_that_shows_them() -> None:
    written = SampleWritten(step=0, paths=("a", "b"), grid="samples/grid.png", seconds=2.0)
    reported = event_messages.sample_event(written, "file-1")
    assert reported.message == "Samples of the base: 2 images in 2.0 s."
    assert reported.data == {"event": "sample", "step": 0, "seconds": 2.0, "file_id": "file-1"}
    assert event_messages.sample_event(written.model_copy(update={"step": 50}), "f").message.startswith(
        "Samples at step 50: "
    )
    assert event_messages.to_job_event(written) is None


def test_every_phase_has_its_words() -> None:
    assert event_messages.PHASES.keys() == set(get_args(PhaseName))


def test_result_files_are_listed_weights_first_and_diffusers_own_before_all() -> None:
    names = ["README.md", "a.safetensors", "pytorch_lora_weights.safetensors", "learned_embeds.safetensors", "a.png"]
    assert sorted(names, key=conclusion.result_order) == [
        "pytorch_lora_weights.safetensors",
        "a.safetensors",
        "learned_embeds.safetensors",
        "README.md",
        "a.png",
    ]


def test_a_warning_is_reported_as_one_and_what_becomes_a_row_is_not_reported_twice() -> None:
    warned = event_messages.to_job_event(Warned(code="weak", message="Look."))
    assert warned is not None
    assert (warned.level, warned.data) == ("warn", {"code": "weak"})
    phase = event_messages.to_job_event(Phase(phase="training", previous="caching", seconds=1.0))
    assert phase is not None
    assert phase.message == "Training."
    assert event_messages.to_job_event(CheckpointWritten(step=1, path="p")) is None
    assert event_messages.to_job_event(Done(best_step=1, files={})) is None


@pytest.mark.parametrize("every", [1, 3, 7, 13])
def test_a_long_runs_progress_is_thinned_evenly_whatever_steps_are_reported(every: int) -> None:
    steps = [*range(every, 2000, every), 2000]
    points = [event_messages.point_of(progress(step, 2000)) for step in steps]
    assert len(set(points)) >= min(len(steps), event_messages.POINTS) * 0.7
    assert len(set(points)) <= event_messages.POINTS + 2
    assert points == sorted(points)
    assert points[-1] != points[-2]


def test_a_short_runs_progress_stays_whole() -> None:
    assert len({event_messages.point_of(progress(step, 150)) for step in range(1, 151)}) == 150


def test_an_attempt_reports_one_progress_line_a_point() -> None:
    attempt = Attempt(JobLease("job", "project", 1), Path())
    attempt.receive([progress(step, 2000) for step in range(1, 2001)])
    assert len(attempt._new_events) == event_messages.POINTS + 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exit code 1"),
        (75, "exit code 75, as after a SIGTERM, which its worker did not send"),
        (-15, "signal SIGTERM"),
        (-9, "signal SIGKILL"),
        (-40, "signal 40"),
    ],
)
def test_an_exit_is_described(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_the_last_lines_of_a_log_hold_nothing_that_a_database_refuses(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(f"line {index}\n".encode() for index in range(5000)) + b"\xff\0end\n")
    lines = last_lines(log).splitlines()
    assert len(lines) == SHOWN_LINES
    assert lines[-2:] == ["line 4999", "�end"]

"""What the OpenAPI document shows of jobs: a request, an event, a checkpoint and series of numbers."""

from __future__ import annotations

from pydantic.config import JsonDict

from api.errors.example_ids import BASE, CHECKPOINT, CREATED, EVENT, FILE, JOB, MODEL

REQUEST: JsonDict = {
    "model": BASE,
    "training_file": FILE,
    "method": {"type": "mapo", "mapo": {"hyperparameters": {"preset": "style", "max_steps": 150}}},
    "suffix": "line-art",
    "seed": 7,
    "metadata": {"team": "icons"},
}
STEP: JsonDict = {
    "step": 60,
    "loss": 0.6714,
    "chosen_loss": 0.1042,
    "rejected_loss": 0.1213,
    "margin": 0.0171,
    "grad_norm": 0.021,
    "learning_rate": 0.0001,
    "pairs_per_second": 6.4,
}
CHECK: JsonDict = {
    "step": 60,
    "objective": 0.6609,
    "chosen_loss": 0.1037,
    "rejected_loss": 0.1188,
    "margin": 0.0151,
    "implicit_accuracy": 0.71,
    "implicit_accuracy_low": 0.58,
    "implicit_accuracy_high": 0.82,
    "base_implicit_accuracy": 0.52,
    "reference_corrected_accuracy": 0.75,
}
EVENT_EXAMPLE: JsonDict = {
    "id": EVENT,
    "object": "fine_tuning.job.event",
    "created_at": CREATED + 90,
    "level": "info",
    "type": "metrics",
    "message": "Step 60 of 150: loss 0.6714.",
    "data": STEP | {"event": "progress"},
}
WRITTEN: JsonDict = {
    "id": CHECKPOINT,
    "object": "fine_tuning.job.checkpoint",
    "created_at": CREATED + 95,
    "fine_tuned_model_checkpoint": f"{MODEL}:ckpt-step-60",
    "fine_tuning_job_id": JOB,
    "step_number": 60,
    "metrics": CHECK,
}
SERIES: JsonDict = {
    "object": "fine_tuning.job.metrics",
    "fine_tuning_job_id": JOB,
    "training": [STEP],
    "validation": [CHECK],
    "result": None,
}
CSV = """\
series,step,loss,chosen_loss,rejected_loss,margin,grad_norm,learning_rate,pairs_per_second,objective,implicit_accuracy
training,60,0.6714,0.1042,0.1213,0.0171,0.021,0.0001,6.4,,
validation,60,,0.1037,0.1188,0.0151,,,,0.6609,0.71
"""
STREAM = f"""\
retry: 2000

event: message
data: {{"id": "{EVENT}", "object": "fine_tuning.job.event", "level": "info", "message": "Succeeded.", ...}}
id: {EVENT}

event: done
data: {{"status": "succeeded"}}
"""

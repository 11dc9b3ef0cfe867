"""What the OpenAPI document shows of jobs: one that trains, what it has told, and what came of it."""

from __future__ import annotations

from pydantic.config import JsonDict

from api.example_ids import BASE, CHECKPOINT, CREATED, EVENT, FILE, JOB, MODEL, PROJECT

HYPERPARAMETERS: JsonDict = {
    "form": "paper",
    "preset": "style",
    "beta": "auto",
    "max_steps": 150,
    "n_epochs": "auto",
    "batch_size": "auto",
    "gradient_accumulation": "auto",
    "learning_rate": "auto",
    "lr_scheduler": "auto",
    "warmup_steps": "auto",
    "weight_decay": "auto",
    "max_grad_norm": "auto",
    "prompt_dropout": "auto",
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
RUNNING: JsonDict = {
    "id": JOB,
    "object": "fine_tuning.job",
    "created_at": CREATED,
    "finished_at": None,
    "estimated_finish": CREATED + 240,
    "organization_id": PROJECT,
    "status": "running",
    "model": BASE,
    "fine_tuned_model": None,
    "training_file": FILE,
    "validation_file": None,
    "result_files": [],
    "trained_tokens": None,
    "error": None,
    "method": {"type": "mapo", "mapo": {"hyperparameters": HYPERPARAMETERS}},
    "hyperparameters": HYPERPARAMETERS,
    "seed": 7,
    "suffix": "line-art",
    "metadata": {"team": "icons"},
    "integrations": [],
    "adapter": {"type": "lora", "rank": 16, "alpha": None, "dropout": 0.0, "target_modules": "auto"},
    "data": {"resolution": "auto", "horizontal_flip": False, "caption_templates": ["{prompt}"]},
    "validation": {"share": 0.1, "draws": 4, "max_pairs": 256, "pairs_at_checkpoints": "auto", "patience": None},
    "checkpoints": {"every_steps": None},
    "sampling": {"prompts": [], "steps": 25, "guidance": "auto", "seed": 0, "every_steps": None},
    "mismatch": {"samples": "auto"},
    "compute": {"base_precision": "auto", "optimizer": "adamw", "gradient_checkpointing": "auto", "compile": False},
    "progress": STEP | {"max_steps": 150, "eta_seconds": 112.0},
    "attempt": 1,
    "requested": None,
    "priority": 0,
    "memory_gib": None,
    "queue_position": None,
    "expected_start": None,
}
TOLD: JsonDict = {
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

id: {EVENT}
event: message
data: {{"id": "{EVENT}", "object": "fine_tuning.job.event", "level": "info", "message": "Succeeded.", ...}}

event: done
data: {{"status": "succeeded"}}
"""

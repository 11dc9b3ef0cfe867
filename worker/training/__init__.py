"""Running a job: its attempt, its trainer, its end."""

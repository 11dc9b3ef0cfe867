# syntax=docker/dockerfile:1
# The training worker: Celery, the supervisor and the trainer, with torch for CUDA. (And the
# `pairtune` command.)
# Build it from the repository's root: docker build --file docker/worker.Dockerfile .
#
# A slim Python image and not nvidia/cuda: torch's wheel from PyPI depends on wheels of the CUDA libraries that it was
# built with, so theirs would be a second, unused copy of several gigabytes. The driver comes from the host, by the
# NVIDIA Container Toolkit. Without a GPU the same image trains on the CPU.

FROM python:3.11.15-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pairtune
ENV PATH=/opt/pairtune/bin:$PATH
WORKDIR /app
COPY requirements.lock pyproject.toml ./
COPY docker/image_requirements.py docker/
RUN --mount=type=cache,target=/root/.cache/pip \
    python docker/image_requirements.py worker > /tmp/locked.txt \
    && pip install --no-deps --require-hashes --requirement /tmp/locked.txt
# torch and its CUDA libraries, which the lock leaves out; the rest of what torch needs is there.
RUN --mount=type=cache,target=/root/.cache/pip \
    python docker/image_requirements.py worker --unlocked > /tmp/unlocked.txt \
    && pip install --requirement /tmp/unlocked.txt
# Bases in int8 and nf4, and 8-bit AdamW, on CUDA. --build-arg BITSANDBYTES= leaves it out.
ARG BITSANDBYTES=0.50.2
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$BITSANDBYTES" ]; then pip install --no-deps "bitsandbytes==$BITSANDBYTES"; fi
COPY cli cli
COPY intake intake
COPY migrations migrations
COPY store store
COPY trainer trainer
COPY worker worker
COPY demo/base demo/base
COPY LICENSE NOTICE README.md ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM python:3.11.15-slim-trixie
# Compilers, for compute.compile: Triton builds its launchers in C (Python.h comes with this image), and on a CPU torch's
# kernels are in C++.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 pairtune \
    && useradd --uid 10001 --gid pairtune --no-create-home --home-dir /var/lib/pairtune pairtune \
    # A new named volume takes the owner of the directory that it is mounted on.
    && install --directory --mode 0700 --owner pairtune --group pairtune \
        /var/lib/pairtune /var/lib/pairtune/blobs /var/lib/pairtune/hf-cache /var/lib/pairtune/work
COPY --from=build /opt/pairtune /opt/pairtune
COPY --from=build /app /app
# HF_HOME: bases that come from the hub are downloaded once. NVIDIA_*: torch needs the driver's compute part.
ENV PATH=/opt/pairtune/bin:$PATH \
    HF_HOME=/var/lib/pairtune/hf-cache \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PAIRTUNE_HOME=/var/lib/pairtune \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
# What to run is said by docker-compose.yml, for each service.

# syntax=docker/dockerfile:1
# The API, the dispatcher, the migrations, the intake worker and the `pairtune` command: all but training, so no torch.
# Build it from the repository's root: docker build --file docker/api.Dockerfile .

FROM python:3.11.15-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pairtune
ENV PATH=/opt/pairtune/bin:$PATH
WORKDIR /app
COPY requirements.lock pyproject.toml ./
COPY docker/image_requirements.py docker/
RUN --mount=type=cache,target=/root/.cache/pip \
    python docker/image_requirements.py api > /tmp/locked.txt \
    && pip install --no-deps --require-hashes --requirement /tmp/locked.txt
COPY api api
COPY cli cli
COPY intake intake
COPY migrations migrations
COPY store store
COPY trainer/__init__.py trainer/
COPY trainer/spec trainer/spec
COPY worker worker
# store/bases.toml lists it. A job's spec names the base by its directory, which has to be the same here and in the worker image.
COPY demo/base demo/base
COPY LICENSE NOTICE README.md ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM python:3.11.15-slim-trixie
RUN groupadd --gid 10001 pairtune \
    && useradd --uid 10001 --gid pairtune --no-create-home --home-dir /var/lib/pairtune pairtune \
    # A new named volume takes the owner of the directory that it is mounted on.
    && install --directory --mode 0700 --owner pairtune --group pairtune \
        /var/lib/pairtune /var/lib/pairtune/blobs /var/lib/pairtune/uploads /var/lib/pairtune/work
COPY --from=build /opt/pairtune /opt/pairtune
COPY --from=build /app /app
ENV PATH=/opt/pairtune/bin:$PATH \
    PAIRTUNE_HOME=/var/lib/pairtune \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
# What to run is said by docker-compose.yml, for each service.

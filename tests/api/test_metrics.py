"""/metrics: figures that all processes share, those of this process, and the format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from starlette.testclient import TestClient

from api.http.request_metrics import RequestMetrics
from store.database import Sessions
from store.files import file_leases
from store.generations import generation_leases
from store.job_status import JobStatus
from store.jobs import job_leases
from store.jobs.events import NewEvent
from store.ops import counters
from store.settings import Settings
from tests.api.conftest import add_file, open_client
from tests.api.job_steps import claim, create
from tests.conftest import Tenant
from tests.store.rows import add_generation

LINE = re.compile(r'(?P<name>[a-z_]+)(?P<labels>\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (?P<value>[0-9.e+-]+)')
DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def figures(client: TestClient) -> dict[str, float]:
    """Each sample by its name and labels, as written."""
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    matches = [match for match in map(LINE.fullmatch, lines) if match is not None]
    assert len(matches) == len(lines)
    return {f"{match['name']}{match['labels'] or ''}": float(match["value"]) for match in matches}


def exposed(collector: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


@pytest.mark.unit
def test_the_format_escapes_what_would_end_a_label_or_a_line() -> None:
    class Escaped(Collector):
        def collect(self) -> Iterator[Metric]:
            family = GaugeMetricFamily("pairtune_a", "Two\nlines.", labels=["worker"])
            family.add_metric(['a"b\\c\n'], 1.5)
            yield family

    assert exposed(Escaped()) == (
        '# HELP pairtune_a Two\\nlines.\n# TYPE pairtune_a gauge\npairtune_a{worker="a\\"b\\\\c\\n"} 1.5\n'
    )


@pytest.mark.unit
def test_a_duration_counts_in_every_bucket_that_it_fits_into() -> None:
    requests = RequestMetrics()
    for seconds in (0.005, 0.02, 700.0):
        requests.answered("GET", "/v1/files", 200, seconds)
    text = exposed(requests)
    labels = 'method="GET",route="/v1/files",status="200"'
    for bound, count in (("0.005", 1), ("0.01", 1), ("0.025", 2), ("1", 2), ("600", 2), ("+Inf", 3)):
        assert f'pairtune_http_request_duration_seconds_bucket{{le="{bound}",{labels}}} {count}.0\n' in text
    assert f"pairtune_http_request_duration_seconds_count{{{labels}}} 3.0\n" in text
    assert f"pairtune_http_request_duration_seconds_sum{{{labels}}} 700.025\n" in text
    assert "_created" not in text


@pytest.mark.unit
def test_applications_in_one_process_count_their_own_requests() -> None:
    one, another = RequestMetrics(), RequestMetrics()
    one.answered("GET", "/v1/files", 200, 0.1)
    assert "/v1/files" not in exposed(another)


@pytest.mark.integration
def test_it_needs_no_key_and_counts_what_workers_did(
    client: TestClient, sessions: Sessions, project: Tenant, file_id: str
) -> None:
    def change(before: dict[str, float], name: str) -> float:
        return figures(client)[f"pairtune_{name}"] - before[f"pairtune_{name}"]

    first, second = create(client, file_id)["id"], create(client, file_id)["id"]
    add_file(sessions, project.id, status="uploaded")
    client.headers.pop("authorization")
    start = figures(client)
    owned = claim(sessions, first)
    with sessions.begin() as session:
        job_leases.renew(session, owned, lease_seconds=60)
        progress = {"pairs_per_second": 12.5, "peak_memory_bytes": 2**20}
        job_leases.record(session, owned, [NewEvent("Step.")], progress=progress)
    assert change(start, 'claims_total{queue="train"}') == 1
    assert change(start, 'renewals_total{queue="train"}') == 1
    assert change(start, 'jobs{status="running"}') == 1
    assert change(start, 'jobs{status="queued"}') == -1
    assert figures(client)['pairtune_training_pairs_per_second{worker="w1"}'] == 12.5
    assert figures(client)['pairtune_training_peak_memory_bytes{worker="w1"}'] == 2**20
    with sessions.begin() as session:
        assert job_leases.crash(session, owned, code="c", message="m", crash_cap=3) is JobStatus.QUEUED
    assert change(start, 'crashes_total{queue="train"}') == 1
    assert change(start, 'requeues_total{queue="train"}') == 1
    assert figures(client)["pairtune_files_waiting"] >= 1
    with sessions.begin() as session:
        earlier = text("UPDATE jobs SET queued_at = queued_at - interval '1 hour' WHERE id = :id")
        session.execute(earlier, {"id": second})
    assert figures(client)['pairtune_queue_age_seconds{queue="train"}'] >= 3600


@pytest.mark.integration
def test_the_queues_of_uploads_and_of_images_are_counted_too(
    client: TestClient, sessions: Sessions, project: Tenant
) -> None:
    file = add_file(sessions, project.id, status="uploaded")
    images = add_generation(sessions, project.id)
    start = figures(client)
    with sessions.begin() as session:
        earlier = text("UPDATE generations SET created_at = created_at - interval '1 hour' WHERE id = :id")
        session.execute(earlier, {"id": images})
    assert figures(client)['pairtune_queue_age_seconds{queue="draw"}'] >= 3600
    with sessions.begin() as session:
        reading = file_leases.claim(session, file.id, lease_seconds=60)
        drawing = generation_leases.claim(session, images, worker="w2", lease_seconds=60)
        assert reading is not None
        assert drawing is not None
        file_leases.note_progress(session, reading, {"worker": "reader", "peak_memory_bytes": 2**28})
    found = figures(client)
    assert found['pairtune_intake_peak_memory_bytes{worker="reader"}'] == 2**28
    with sessions.begin() as session:
        file_leases.crash(session, reading, reason="r", crash_cap=3)
        generation_leases.crash(session, drawing, code="c", message="m", crash_cap=3)
    after = figures(client)
    for queue in ("intake", "draw"):
        for name in ("claims", "crashes", "requeues"):
            counted = f'pairtune_{name}_total{{queue="{queue}"}}'
            assert after[counted] - start[counted] == 1, counted


@pytest.mark.integration
def test_what_is_rolled_back_is_not_counted(client: TestClient, sessions: Sessions, file_id: str) -> None:
    job_id = create(client, file_id)["id"]
    before = figures(client)['pairtune_claims_total{queue="train"}']
    with sessions() as session:
        assert job_leases.claim(session, job_id, worker="w", lease_seconds=60) is not None
        session.rollback()
    assert figures(client)['pairtune_claims_total{queue="train"}'] == before


@pytest.mark.integration
def test_the_dispatchers_lag_is_that_of_its_last_round(anonymous: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        counters.record_heartbeat(session, "dispatcher")
    assert 0 <= figures(anonymous)['pairtune_loop_lag_seconds{loop="dispatcher"}'] < 60
    with sessions.begin() as session:
        session.execute(text("UPDATE heartbeats SET at = at - interval '5 minutes'"))
    assert 300 <= figures(anonymous)['pairtune_loop_lag_seconds{loop="dispatcher"}'] < 360


@pytest.mark.integration
def test_requests_are_counted_by_route_and_status_whatever_ids_are_requested(client: TestClient) -> None:
    count = "pairtune_http_request_duration_seconds_count"
    missing = f'{count}{{method="GET",route="/v1/files/{{file_id}}",status="404"}}'
    unknown = f'{count}{{method="GET",route="none",status="404"}}'
    before = figures(client)
    for name in ("a", "b", "c"):
        assert client.get(f"/v1/files/{name}").status_code == 404
        assert client.get(f"/v1/{name}").status_code == 404
    after = figures(client)
    assert after[missing] - before.get(missing, 0) == 3
    assert after[unknown] - before.get(unknown, 0) == 3
    assert after["pairtune_http_requests_in_flight"] == 1  # this one


@pytest.mark.integration
def test_without_a_database_the_process_reports_its_own(settings: Settings, tmp_path: Path) -> None:
    gone = {"database_url": f"postgresql+psycopg://u@/none?host={tmp_path}"}
    with open_client(settings.model_copy(update=gone)) as client:
        found = figures(client)
    assert found["pairtune_database_up"] == 0
    assert found['pairtune_disk_free_bytes{use="blobs"}'] > 0
    assert "pairtune_files_waiting" not in found


@pytest.mark.integration
def test_the_operators_page_explains_every_figure_and_no_other(anonymous: TestClient, sessions: Sessions) -> None:
    exposed_names = set(re.findall(r"^# TYPE (\S+)", anonymous.get("/metrics").text, re.MULTILINE))
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`(?:pairtune|process|python)_.*?) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)} == exposed_names

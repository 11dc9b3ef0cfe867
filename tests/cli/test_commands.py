"""The commands as a shell has them: output, exit codes, and what they do on a live server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from cli.main import app
from store.blobs import upload_parts
from store.blobs.blobs import Blobs
from store.database import open_engine, open_sessions
from store.errors import BlobMissing
from store.files import uploads
from store.files.files import NewFile
from store.files.uploads import NewUpload
from store.jobs import job_leases
from store.jobs.events import NewEvent
from store.jobs.job_leases import JobLease
from store.settings import settings
from tests.api.conftest import add_file
from tests.api.serving import Live

pytestmark = pytest.mark.integration
Run = Callable[..., Result]
PROGRESS = {
    "event": "progress", "step": 5, "max_steps": 10, "loss": 0.25, "margin": 0.01,
    "pairs_per_second": 26.0, "eta_seconds": 61.0,
}  # fmt: skip


@pytest.fixture
def run(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("PAIRTUNE_URL", live.url)
    monkeypatch.setenv("PAIRTUNE_API_KEY", live.tenant.api_key)
    monkeypatch.setenv("PAIRTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    settings.cache_clear()
    runner = CliRunner()
    yield lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
    settings.cache_clear()


@pytest.fixture
def file_id(live: Live) -> str:
    return add_file(live.sessions, live.tenant.id).id


def claim(live: Live, job_id: str) -> JobLease:
    with live.sessions.begin() as session:
        owned = job_leases.claim(session, job_id, worker="w", lease_seconds=60)
    assert owned is not None
    return owned


def started(run: Run, file: str | Path, *options: object) -> dict[str, object]:
    result = run("train", file, "--base", "tiny", "--json", *options)
    assert result.exit_code == 0, result.output
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_train_uploads_an_archive_and_sets_options_by_name_and_by_path(run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "pairs.zip"
    archive.write_bytes(b"not really a zip")
    job = started(
        run, archive, "--method", "dpo", "--set", "learning_rate=1e-4", "--set", "beta=2500", "--set", "adapter.rank=4",
        "--suffix", "mine", "--seed", 7,
    )  # fmt: skip
    assert job["status"] == "validating_files"
    assert job["hyperparameters"] | {"learning_rate": 1e-4, "beta": 2500.0} == job["hyperparameters"]  # type: ignore[operator]
    assert (job["adapter"]["rank"], job["suffix"], job["seed"]) == (4, "mine", 7)  # type: ignore[index]


def test_a_refusal_reports_every_fault_and_ends_with_4(run: Run, file_id: str) -> None:
    result = run("train", file_id, "--base", "tiny", "--set", "learning_rate=-1", "--set", "adapter.rnk=4")
    assert result.exit_code == 4
    assert "learning_rate" in result.stderr
    assert "adapter.rnk" in result.stderr
    assert "request " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("change", ["learning_rate", "=3"])
def test_a_change_that_is_none_is_wrong_usage(run: Run, file_id: str, change: str) -> None:
    result = run("train", file_id, "--set", change)
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.stderr


def test_jobs_lists_the_newest_first_with_their_progress(run: Run, live: Live, file_id: str) -> None:
    first, second = started(run, file_id)["id"], started(run, file_id, "--seed", 1)["id"]
    owned = claim(live, str(second))
    with live.sessions.begin() as session:
        job_leases.record(session, owned, [], progress=PROGRESS)
    listed = [job["id"] for job in json.loads(run("jobs", "--json", "--limit", 2).stdout)]
    assert listed == [second, first]
    text = run("jobs", "--limit", 1).stdout
    assert "running" in text
    assert "5/10, 1:01 left" in text


def test_a_queued_job_pauses_resumes_and_is_cancelled(run: Run, file_id: str) -> None:
    job_id = started(run, file_id)["id"]
    assert "is paused" in run("pause", job_id).stdout
    assert "is queued" in run("resume", job_id).stdout
    assert json.loads(run("cancel", job_id, "--json").stdout)["status"] == "cancelled"
    again = run("resume", job_id)
    assert again.exit_code == 4
    assert "cancelled" in again.stderr


def test_watch_shows_what_happens_until_the_job_succeeds_and_download_fetches_it(
    run: Run, live: Live, file_id: str, tmp_path: Path
) -> None:
    job_id = str(started(run, file_id)["id"])
    content = bytes(range(256)) * 8000
    blob = Blobs(f"file://{live.home / 'blobs'}").put_bytes(content)
    result = NewFile(live.tenant.id, "pytorch_lora_weights.safetensors", "fine-tune-results", blob.bytes, blob.sha256)

    def work() -> None:
        owned = claim(live, job_id)
        for news, progress in (
            ([NewEvent("Training.", data={"event": "phase", "phase": "training"})], None),
            ([NewEvent("Step 5/10.", type="metrics", data=PROGRESS)], PROGRESS),
            ([NewEvent("Chosen loss is rising.", level="warn", data={"code": "chosen_loss_rising"})], None),
        ):
            with live.sessions.begin() as session:
                job_leases.record(session, owned, news, progress=progress)
        with live.sessions.begin() as session:
            job_leases.succeed(session, owned, results=[result])

    assert run("download", job_id).exit_code == 5
    worker = threading.Thread(target=work)
    worker.start()
    watched = run("watch", job_id)
    worker.join()
    assert watched.exit_code == 0, watched.output
    assert "Chosen loss is rising." in watched.stdout
    assert "Step 5/10." not in watched.stdout  # which the bar shows
    assert "ft:tiny:" in watched.stdout

    fetched = run("download", job_id, "--to", tmp_path / "out", "--json")
    [file] = json.loads(fetched.stdout)
    assert file["bytes"] == len(content)
    assert (tmp_path / "out" / "pytorch_lora_weights.safetensors").read_bytes() == content
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pytorch_lora_weights.safetensors"]


def test_watching_a_job_that_failed_ends_with_5_and_the_reason(run: Run, live: Live, file_id: str) -> None:
    job_id = str(started(run, file_id)["id"])
    with live.sessions.begin() as session:
        owned = job_leases.claim(session, job_id, worker="w", lease_seconds=60)
        assert owned is not None
        job_leases.fail(session, owned, code="nan", message="The loss is not a number.")
    result = run("watch", job_id)
    assert result.exit_code == 5
    assert "failed: The loss is not a number." in result.stderr


def test_without_a_key_the_command_says_where_one_comes_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAIRTUNE_API_KEY")
    settings.cache_clear()
    result = run("jobs")
    assert result.exit_code == 2
    assert "local.key" in result.stderr


def test_models_are_listed_added_and_removed_and_comments_stay(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "tiny" in [one["id"] for one in json.loads(run("models", "list", "--json").stdout)]
    listed = tmp_path / "bases.toml"
    (tmp_path / "one").mkdir()
    text = '# Ours.\n[[base]]\nname = "one"\nfamily = "sdxl"\nsource = "./one"\n'
    listed.write_text(text)
    monkeypatch.setenv("PAIRTUNE_BASES_FILE", str(listed))
    settings.cache_clear()
    refused = run("models", "add", "two", "--family", "sdxl", "--source", "some/hub-model")
    assert refused.exit_code == 1
    assert "revision" in refused.stderr
    assert listed.read_text() == text
    entry = {"name": "two", "family": "sdxl", "source": "some/hub-model", "revision": "a" * 40}
    options = [text for name in ("family", "source", "revision") for text in (f"--{name}", entry[name])]
    added = run("models", "add", "two", *options, "--json")
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout) == {"bases_file": str(listed), "base": entry}
    assert listed.read_text().startswith(text)
    assert 'name = "two"' in listed.read_text()
    assert json.loads(run("models", "remove", "two", "--json").stdout)["base"] == entry
    assert listed.read_text().strip() == text.strip()
    assert run("models", "remove", "two").exit_code == 1


def test_keys_are_made_listed_and_revoked(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRTUNE_DATABASE_URL", database_url)
    settings.cache_clear()
    created = run("keys", "create", "for a test", "--project", "ours")
    secret = created.stdout.strip()
    [key] = json.loads(run("keys", "list", "--json").stdout)
    assert f"`pairtune keys revoke {key['id']}` ends it." in created.stderr
    assert secret.startswith(key["prefix"])
    assert secret not in json.dumps(key)
    assert (key["name"], key["project"], key["role"]) == ("for a test", "ours", "member")
    assert (key["last_used"], key["revoked"]) == (None, None)
    assert json.loads(run("keys", "revoke", key["id"], "--json").stdout) == {"id": key["id"], "revoked": True}
    assert json.loads(run("keys", "list", "--json").stdout)[0]["revoked"] is not None
    assert run("keys", "revoke", key["id"]).exit_code == 1
    document = json.loads(run("keys", "create", "looks on", "--role", "read-only", "--json").stdout)
    assert (document["key"][:3], document["project"], document["role"]) == ("pt-", "default", "read-only")
    second = json.loads(run("keys", "list", "--json").stdout)[1]
    assert (second["id"], second["role"]) == (document["id"], "read-only")
    assert f"{second['id']}\t{document['key'][:10]}\tlooks on\t" in run("keys", "list").stdout
    assert run("keys", "create", "rules", "--role", "emperor").exit_code == 2


def test_projects_are_listed_and_given_limits(run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRTUNE_DATABASE_URL", database_url)
    monkeypatch.setenv("PAIRTUNE_QUOTA_UPLOADS", "7")
    monkeypatch.setenv("PAIRTUNE_QUOTA_STORED_BYTES", "none")
    settings.cache_clear()
    given = ("--stored-bytes", "10 GiB", "--running-jobs", "2", "--requests-per-minute", "none", "--queued-jobs", "0")
    call = json.loads(run("projects", "set", "ours", *given, "--json").stdout)
    [project] = json.loads(run("projects", "list", "--json").stdout)
    assert call == project
    own = ["queued_jobs", "requests_per_minute", "running_jobs", "stored_bytes"]
    assert (project.pop("id")[:5], project.pop("name"), project.pop("own")) == ("proj-", "ours", own)
    expected: dict[str, int | None] = {"stored_bytes": 10 * 2**30, "queued_jobs": 0, "running_jobs": 2, "uploads": 7}
    shared = {"queued_files": 1000, "running_files": None, "queued_images": 100, "running_images": None}
    expected |= shared | {"pairs": 2_000_000, "requests_per_minute": None, "requests_burst": 300}
    assert project == expected
    assert run("projects", "set", "ours", "--stored-bytes", "default").exit_code == 0
    assert json.loads(run("projects", "list", "--json").stdout)[0]["stored_bytes"] is None
    for option, wrong in (
        ("--uploads", "1GiB"), ("--stored-bytes", "-1"), ("--requests-per-minute", "0"), ("--requests-burst", "none"),
    ):  # fmt: skip
        refused = run("projects", "set", "ours", option, wrong)
        assert (refused.exit_code, option in refused.stderr) == (1, True), (option, refused.output)
    assert "10737418240" not in run("projects", "list").stdout


def test_a_project_is_erased_with_its_keys_and_its_uploads(
    run: Run, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRTUNE_DATABASE_URL", database_url)
    monkeypatch.setenv("PAIRTUNE_BLOB_URL", f"file://{tmp_path / 'blobs'}")
    settings.cache_clear()
    for project in ("ours", "theirs"):
        run("keys", "create", "mine", "--project", project)
    [project_id] = [one["id"] for one in json.loads(run("projects", "list", "--json").stdout) if one["name"] == "ours"]
    engine = open_engine(database_url)
    with open_sessions(engine).begin() as session:
        new = NewUpload(project_id, "a.zip", "fine-tune", 3, None)
        upload_id = uploads.create(session, new, lifetime_seconds=60).id
    engine.dispose()
    part = tmp_path / "part"
    part.write_bytes(b"abc")
    store = Blobs(f"file://{tmp_path / 'blobs'}").store
    upload_parts.save(store, upload_id, "part-1", part)
    other = CliRunner().invoke(app, ["projects", "delete", "ours"], input="theirs\n")
    assert (other.exit_code, "Nothing was erased" in other.stderr) == (1, True)
    erased = json.loads(run("projects", "delete", "ours", "--yes", "--json").stdout)
    assert erased == {"name": "ours", "erased": {"api_keys": 1, "audit_entries": 1, "projects": 1, "uploads": 1}}
    [entry] = json.loads(run("audit", "--json", "--action", "project.deleted").stdout)
    assert (entry["subject"], entry["details"]) == (project_id, {"rows": 4})
    assert [one["name"] for one in json.loads(run("projects", "list", "--json").stdout)] == ["theirs"]
    with pytest.raises(BlobMissing):
        list(upload_parts.stream(store, upload_id, "part-1", 3))
    again = run("projects", "delete", "ours", "--yes")
    assert (again.exit_code, "There is no project 'ours'" in again.stderr) == (1, True)


def test_doctor_says_what_is_well_and_what_to_mend(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    well = run("doctor", "--json")
    assert well.exit_code == 0, well.output
    found = {one["name"]: one["state"] for one in json.loads(well.stdout)}
    assert found.keys() == {"device", "database", "broker", "storage", "bases", "disk", "api"}
    assert (found["api"], found["storage"], found["bases"]) == ("ok", "ok", "ok")
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart')")  # and takes no seconds
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ill = run("doctor")
    assert ill.exit_code == 1
    assert "torch cannot be used: ImportError: libcudart" in ill.stdout
    assert "-> Reinstall pairtune from requirements.lock." in ill.stdout


def test_what_an_operator_does_is_in_the_audit_log(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRTUNE_DATABASE_URL", database_url)
    monkeypatch.setenv("LOGNAME", "alice")
    settings.cache_clear()
    key = json.loads(run("keys", "create", "nightly", "--project", "icons", "--role", "admin", "--json").stdout)
    assert run("projects", "set", "icons", "--queued-jobs", "3", "--uploads", "default").exit_code == 0
    assert run("projects", "set", "others").exit_code == 0  # makes it, and changes nothing
    assert run("keys", "revoke", key["id"]).exit_code == 0
    assert run("keys", "revoke", key["id"]).exit_code == 1
    entries = json.loads(run("audit", "--json").stdout)
    assert [one["action"] for one in entries] == ["key.revoked", "limits.changed", "key.created"]
    assert {one["project"] for one in entries} == {"icons"}
    assert all(one["by"].startswith("operator alice@") and one["at"] and one["address"] is None for one in entries)
    revoked, changed, made = entries
    assert (revoked["subject"], made["subject"]) == (key["id"], key["id"])
    assert made["details"] == {"name": "nightly", "role": "admin"}
    assert changed["details"] == {"own": {"queued_jobs": 3}, "default": ["uploads"]}
    assert key["key"] not in json.dumps(entries)
    assert json.loads(run("audit", "--action", "key.created", "--json").stdout) == [made]
    assert json.loads(run("audit", "--project", "others", "--json").stdout) == []
    assert json.loads(run("audit", "--limit", "1", "--json").stdout) == [revoked]
    assert f"key.revoked\t{key['id']}\ticons\toperator alice@" in run("audit").stdout


@pytest.mark.parametrize("command", [("keys", "list"), ("audit",), ("projects", "list"), ("keys", "create", "mine")])
def test_without_a_database_the_command_says_how_to_name_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    postmaster = tmp_path / "home" / "postgres" / "postmaster.pid"
    postmaster.parent.mkdir(parents=True)
    for left_behind in ("", f"1\n{tmp_path}\n0\n5432\n{tmp_path}\n"):  # being written; of a server that was killed
        postmaster.write_text(left_behind)
        refused = run(*command)
        assert refused.exit_code == 2
        assert f"`pairtune up` does not run in {tmp_path / 'home'}, and PAIRTUNE_DATABASE_URL names" in refused.stderr
    for url, said in (
        ("nonsense", "should be like postgresql+psycopg://"),
        ("postgresql://nobody@127.0.0.1:9/none", "does not take the connection"),
    ):
        monkeypatch.setenv("PAIRTUNE_DATABASE_URL", url)
        settings.cache_clear()
        refused = run(*command)
        assert (refused.exit_code, said in refused.stderr) == (2, True), refused.output


def test_a_database_that_was_not_migrated_is_reported(
    run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRTUNE_DATABASE_URL", postgres_url)
    settings.cache_clear()
    refused = run("keys", "list")
    assert (refused.exit_code, "run `python -m migrations`" in refused.stderr) == (2, True), refused.output


@pytest.mark.parametrize(
    ("variable", "value", "code", "said"),
    [
        ("PAIRTUNE_PORT", "eighty", 2, "PAIRTUNE_PORT: "),
        ("PAIRTUNE_API_KEY", "schlüssel", 2, "contains characters that no key has"),
        ("PAIRTUNE_API_KEY", "pt-wrong", 4, "invalid_api_key"),
        ("PAIRTUNE_URL", "http://127.0.0.1:port", 2, "is not a URL"),
        ("PAIRTUNE_URL", "localhost:8000", 3, "No answer from localhost:8000"),
        ("PAIRTUNE_URL", "http://127.0.0.1:9", 3, "pairtune up"),
    ],
)
def test_a_wrong_environment_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    settings.cache_clear()
    result = run("jobs")
    assert (result.exit_code, said in result.stderr, result.stdout) == (code, True, ""), result.output


@pytest.mark.parametrize("path", ["", "/v1/models/x"])
def test_a_server_that_is_no_api_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if path else 200)
            self.send_header("location", path)
            self.end_headers()
            self.wfile.write(b"<h1>It works!</h1>")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Page)
    answering = threading.Thread(target=server.handle_request)
    answering.start()
    monkeypatch.setenv("PAIRTUNE_URL", f"http://127.0.0.1:{server.server_port}")
    settings.cache_clear()
    result = run("jobs")
    answering.join()
    server.server_close()
    assert (result.exit_code, "Correct PAIRTUNE_URL" in result.stderr) == (3, True), result.output


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("watch", "ftjob-nothing"), 4),
        (("watch", ""), 2),
        (("watch", "../models"), 4),
        (("cancel", "a b?c#d"), 4),
        (("pause", "\udcff"), 2),  # what a shell hands over of bytes that are no UTF-8
        (("train", "no-such-file.zip", "--base", "tiny"), 4),
        (("train", "file-nothing", "--base", "tiny", "--suffix", "\udcff"), 2),
        (("download", "ftjob-nothing"), 4),
        (("datasets", "report", "no-such-file.zip"), 4),
        (("datasets", "create", "\udcff"), 2),
        (("sample", "tiny", "\udcff"), 2),
        (("sample", "tiny", "a cat", "--to", "/proc/nowhere"), 1),
    ],
)
def test_wrong_ids_files_and_texts_are_reported_in_a_line_and_never_by_a_traceback(
    run: Run, command: tuple[str, ...], code: int
) -> None:
    result = run(*command)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def commands() -> Iterator[tuple[str, typer.core.TyperCommand]]:
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in groups.items():
        for one, inner in getattr(command, "commands", {"": command}).items():
            yield f"{name} {one}".strip(), inner


def test_every_command_prints_json_on_request() -> None:
    without = [name for name, command in commands() if "--json" not in {o for p in command.params for o in p.opts}]
    assert without == []

"""The application, which ``python -m api.server`` serves; it logs its requests itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from api.audit.routes import router as audit
from api.auth.authentication import Authentication
from api.caches.thumbnails import Thumbnails
from api.datasets.image_routes import router as dataset_images
from api.datasets.pair_images import DECODED_AT_ONCE
from api.datasets.routes import INSERTED_AT_ONCE
from api.datasets.routes import router as datasets
from api.dependencies import open_dependencies
from api.errors import handlers
from api.files.receive import prepare_directory
from api.files.routes import router as files
from api.fine_tuning.live.event_hub import EventHub
from api.fine_tuning.live.routes import router as fine_tuning_live
from api.fine_tuning.routes import router as fine_tuning
from api.health.routes import router as health
from api.health.service import Readiness
from api.http.body_limit import BodyLimit
from api.http.cross_origin import cross_origin
from api.http.malloc import return_large_allocations
from api.http.request_context import RequestContext
from api.http.request_metrics import RequestMetrics
from api.http.route_rules import RouteRules
from api.http.turns import Turns
from api.http.url_text import refuse_nul
from api.images.routes import router as images
from api.images.waiting import GenerationWaiters
from api.metrics.routes import router as metrics
from api.metrics.service import metrics_registry
from api.models.routes import router as models
from api.openapi.document import document, document_routes
from api.uploads.routes import router as uploads
from api.usage.routes import router as usage
from api.webhooks.routes import router as webhooks
from store.logs import configure_logs
from store.settings import Settings, settings


def create_app(deployment: Settings | None = None) -> FastAPI:
    """Nothing is opened before the application starts; ``deployment`` defaults to the environment's settings."""
    configure_logs()
    chosen = deployment or settings()
    requests = RequestMetrics()
    app = FastAPI(
        title="pairtune",
        version=version("pairtune"),
        summary="Preference fine-tuning of image models: pairs in, a LoRA adapter out.",
        lifespan=lambda app: _lifespan(app, chosen, requests),
        dependencies=[Depends(refuse_nul)],
        redirect_slashes=False,  # else a path with a slash too many is answered 307, which no client expects
        openapi_url=None,  # our own document, below, has the create requests too
    )
    # The one added last is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(Authentication)
    if chosen.cors_origins:
        app.add_middleware(CORSMiddleware, **cross_origin(chosen.cors_origins.split()))
    app.add_middleware(RequestContext, requests=requests)
    handlers.install(app)
    routers = (
        *(health, metrics, files, uploads, datasets, dataset_images, fine_tuning, fine_tuning_live),
        *(models, images, webhooks, usage, audit),
    )
    for router in routers:
        app.include_router(router)
    app.state.rules = RouteRules(routers)
    described = document_routes(document(app))
    app.include_router(described)
    app.state.rules = RouteRules((*routers, described))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, deployment: Settings, requests: RequestMetrics) -> AsyncIterator[None]:
    await run_in_threadpool(prepare_directory, deployment.upload_directory)
    return_large_allocations()
    with open_dependencies(deployment) as dependencies:
        app.state.dependencies = dependencies
        app.state.metrics = metrics_registry(dependencies, requests)
        app.state.hub = EventHub(dependencies.sessions)
        app.state.decoding = Turns(DECODED_AT_ONCE)
        app.state.reviewing = Turns(1)  # a review may take long, and must not block the decoding of images
        app.state.inserting = Turns(INSERTED_AT_ONCE)
        app.state.thumbnails = Thumbnails()
        app.state.readiness = Readiness()
        app.state.waiting = GenerationWaiters(dependencies.sessions)
        yield
        await app.state.hub.close()
        await app.state.waiting.close()

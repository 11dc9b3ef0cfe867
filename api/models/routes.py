"""/v1/models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.audit.actor import By
from api.dependencies import Caller, Injected
from api.errors.responses import failures
from api.http.paging import After
from api.http.route_rules import requires
from api.http.transactions import transaction
from api.models import service
from api.models.schemas import Model, ModelDeleted, ModelList
from store.errors import CursorUnknown, ModelIsBase, ModelNotFound
from store.roles import Role
from store.tenants import audit

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", operation_id="listModels", responses=failures(CursorUnknown))
@requires(Role.READ_ONLY)
def list_models(
    caller: Caller,
    dependencies: Injected,
    after: After = None,
    # OpenAI's SDK requests no second page of models; nobody reads through more than this.
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> ModelList:
    """Base models, then the project's fine-tuned ones, newest first."""
    with transaction(dependencies) as work:
        return service.page(work.session, dependencies.bases, caller.project_id, after=after, limit=limit)


# A path parameter of its own kind: a base's name may hold slashes, as hub ids do.
@router.get("/{model:path}", operation_id="retrieveModel", responses=failures(ModelNotFound))
@requires(Role.READ_ONLY)
def retrieve_model(model: str, caller: Caller, dependencies: Injected) -> Model:
    """One model by name."""
    with transaction(dependencies) as work:
        return service.one(work.session, dependencies.bases, caller.project_id, model)


@router.delete("/{model:path}", operation_id="deleteModel", responses=failures(ModelNotFound, ModelIsBase))
@requires(Role.MEMBER)
def delete_model(model: str, caller: Caller, by: By, dependencies: Injected) -> ModelDeleted:
    """Delete a fine-tuned model: its name, its adapter files and those of its job's checkpoints."""
    with transaction(dependencies) as work:
        audit.record(work.session, by, "model.deleted", model)
        return service.delete(work.session, dependencies.bases, caller.project_id, model)

"""`/metrics` for Prometheus, and the reports that clients send about themselves, which are counted there."""

from __future__ import annotations

from typing import Annotated, Any, Final

import structlog
from fastapi import Body
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.core.plain_words import printable

metrics = Routes(tags=["performance"])
router = Routes(prefix="/analytics", tags=["performance"])

log = structlog.get_logger(__name__)

#: Reports of one call, and characters of a text that the log keeps.
_MOST_REPORTS: Final = 100
_KEPT_CHARS: Final = 300
#: The fields of an error report that the log keeps, where they are texts.
_KEPT: Final = ("type", "name", "message", "component")


class ErrorReports(BaseModel):
    """Errors that a client met; the fields of a report are the client's own."""

    model_config = ConfigDict(hide_input_in_errors=True)

    reports: list[dict[str, Any]] = Field(max_length=_MOST_REPORTS)


class Recorded(BaseModel):
    """What became of reports."""

    status: str = "recorded"
    count: int


@metrics.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "The text format of Prometheus"}},
)
def prometheus(services: ServicesDep) -> Response:
    """Return sums over the whole server; no label names a task, a prompt or a key. docs/operations.md lists them."""
    return Response(services.measures.scrape(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.post("/errors", summary="Report errors of a client")
def report_errors(body: ErrorReports, services: ServicesDep) -> Recorded:
    """Count the errors, and write type, name, message and component of each to the log; nothing else is kept."""
    for report in body.reports:
        kept = {f"client_{name}": printable(str(report[name])[:_KEPT_CHARS]) for name in _KEPT if report.get(name)}
        log.warning("client.error", **kept)
    return _count(services, "error", len(body.reports))


@router.post("/performance", summary="Report a measurement of a client")
def report_performance(body: Annotated[dict[str, Any], Body()], services: ServicesDep) -> Recorded:
    """Count the report; its content is not kept."""
    return _count(services, "performance", bool(body))


@router.post("/journey", summary="Report a step of a client's user")
def report_journey(body: Annotated[dict[str, Any], Body()], services: ServicesDep) -> Recorded:
    """Count the report; its content is not kept: this server follows nobody."""
    return _count(services, "journey", bool(body))


def _count(services: ServicesDep, kind: str, count: int) -> Recorded:
    services.measures.report(kind, count)
    return Recorded(count=count)

"""The generation policy: real or mock generation, and what happens when a model cannot be used."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.core.config.generation_policy import LONGEST_MOCK, GenerationMode, GenerationPolicy
from backend.core.requests.forms import OnModelFailure

router = Routes(prefix="/generation/policy", tags=["generation"])


class Policy(BaseModel):
    """The policy in force."""

    mode: GenerationMode = Field(description="mock: every clip is a mock that says so; for trying clients")
    on_model_failure: OnModelFailure = Field(description="For requests that leave it out")
    mock_seconds: float = Field(description="How long the steps of a mock take together")


class PolicyBody(BaseModel, extra="forbid"):
    """Changes to the policy; what is left out stays."""

    mode: GenerationMode | None = None
    on_model_failure: OnModelFailure | None = None
    mock_seconds: float | None = Field(None, ge=0, le=LONGEST_MOCK, allow_inf_nan=False)


@router.get("", summary="Real or mock generation")
def policy(services: ServicesDep) -> Policy:
    """Return the policy in force."""
    return _shown(services.policy.current())


@router.post("", summary="Switch between real and mock generation")
def change_policy(body: PolicyBody, services: ServicesDep) -> Policy:
    """Apply and store a new policy; it holds from the next task on, in every worker of this home."""
    values: dict[str, Any] = body.model_dump(mode="json", exclude_none=True)
    return _shown(services.policy.change(values))


def _shown(policy: GenerationPolicy) -> Policy:
    return Policy(mode=policy.mode, on_model_failure=policy.on_model_failure, mock_seconds=policy.mock_seconds)

"""The rival: the same endpoint as FastAPI's documentation would have it written, pydantic models in and out.

Started by uvicorn; the bundle's folder is in the environment variable ``BUNDLE``.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict

from policy_runtime import InputError, Policy, decide, read_bundle


class DecisionRequest(BaseModel):
    """What ``decide`` takes."""

    model_config = ConfigDict(extra="forbid")

    timestamp: str | float
    observed_at: str | float | None = None
    load: list[float | None]
    failed: list[float | None]
    active: list[float | None]
    pending: list[float | None]
    seasonal: dict[str, float | None] | None = None
    state: dict[str, Any] | None = None


class PolicyIdentity(BaseModel):
    """Which policy decided."""

    name: str
    version: str


class DecisionRecord(BaseModel):
    """What ``decide`` gives."""

    timestamp: str
    action: Literal["add", "keep", "remove"]
    delta: int
    desired: int
    raw_desired: int
    constraints: list[str]
    reason: str
    policy: PolicyIdentity
    fallback: bool
    state: dict[str, Any]


app = FastAPI()
policy = Policy(read_bundle(os.environ["BUNDLE"]))


@app.get("/ping")
async def ping() -> Response:
    """Whether the server is up."""
    return Response()


@app.post("/invocations")
async def invocations(request: DecisionRequest) -> DecisionRecord:
    """One decision."""
    try:
        return DecisionRecord(**decide(policy, request.model_dump(exclude_unset=True)))
    except InputError as error:
        raise HTTPException(422, str(error)) from error

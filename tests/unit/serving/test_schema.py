from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from policy_runtime import InputError, Policy, builtin_bundle, decide
from policy_runtime.bundle import RulePart
from policy_runtime.rules import RULES
from serving.app import kept
from serving.errors import Refusal
from serving.loading import example_request
from serving.schema import openapi
from serving.settings import Settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"
POLICY = Policy(builtin_bundle())


def validator(policy: Policy, name: str) -> Draft202012Validator:
    document = openapi(policy, Settings())
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return Draft202012Validator(schema)


def test_the_published_description_is_that_of_the_built_in_policy() -> None:
    assert json.loads(DOCUMENT.read_text()) == openapi(POLICY, Settings()), (
        "run: python -m serving schema > docs/openapi.json"
    )


@pytest.mark.parametrize("name", ["Request", "State", "Record", "Error", "Ping"])
def test_each_schema_is_valid(name: str) -> None:
    Draft202012Validator.check_schema(openapi(POLICY, Settings())["components"]["schemas"][name])


@pytest.mark.parametrize("rule", [name for name in RULES if name != "static"])
def test_requests_and_records_of_each_rule_are_as_described(rule: str) -> None:
    policy = Policy(dataclasses.replace(builtin_bundle(), policy=RulePart(rule)))
    request = example_request(policy)
    record = decide(policy, request)

    validator(policy, "Request").validate(request)
    validator(policy, "Record").validate(record)
    validator(policy, "Request").validate({**request, "state": record["state"]})
    validator(policy, "Record").validate(kept(policy, request))


def test_errors_are_as_described() -> None:
    for refusal in (Refusal(400, "load", "is odd"), Refusal(400, "load", "is odd", index=2)):
        validator(POLICY, "Error").validate(json.loads(refusal.body()))


@settings(deadline=None, max_examples=300)
@given(
    name=st.sampled_from([*sorted(example_request(POLICY)), "observed_at", "state", "weather"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["policy", "rule", "name", "day1_max", "day8_hour", "day99_max", "x"]), inner
            )
        ),
        max_leaves=6,
    ),
)
def test_a_request_that_is_not_as_described_is_refused(name: str, value: Any) -> None:
    request = {**example_request(POLICY), name: value}
    if validator(POLICY, "Request").is_valid(request):
        return

    with pytest.raises(InputError):
        decide(POLICY, request)


def test_limits_are_those_of_the_settings() -> None:
    document = json.dumps(openapi(POLICY, Settings(max_batch=77, max_body_bytes=2048, schema=True)))

    assert '"maxItems": 77' in document and "At most 2048 bytes" in document and '"/schema"' in document

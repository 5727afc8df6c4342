"""The rival's handler for AWS's multi-model-server, as its documentation has one written.

The bundle's folder is in the environment variable ``BUNDLE``.
"""

from __future__ import annotations

import json
import os
from typing import Any

from policy_runtime import Policy, decide, read_bundle

policy = Policy(read_bundle(os.environ["BUNDLE"]))


def handle(requests: list[dict[str, Any]] | None, context: Any) -> list[str] | None:
    """One decision for each request of a batch; called with ``None`` once, when the model is loaded."""
    if requests is None:
        return None
    return [json.dumps(decide(policy, json.loads(request["body"]))) for request in requests]

from __future__ import annotations

import json

from serving.errors import Refusal


def test_the_body_names_the_field_and_in_a_batch_the_item() -> None:
    single, item = Refusal(400, "load[3]", "is odd"), Refusal(400, "load[3]", "is odd", index=0)

    assert json.loads(single.body()) == {"error": {"field": "load[3]", "message": "is odd"}}
    assert json.loads(item.body()) == {"error": {"field": "load[3]", "message": "is odd", "index": 0}}


def test_what_came_from_a_client_is_shortened() -> None:
    refusal = Refusal(400, "f" * 201, "m" * 1_000_000)

    assert refusal.field == "f" * 197 + "..."
    assert len(refusal.body()) < 1300

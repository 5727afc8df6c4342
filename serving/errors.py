"""Answers to requests that cannot be served."""

from __future__ import annotations

import orjson

_MAX_FIELD, _MAX_MESSAGE = 200, 1000


class Refusal(Exception):
    """A request that is refused with a status of 4xx.

    Attributes:
        status: HTTP status.
        field: what was wrong: a header, ``body``, or a field of the request such as ``load[3]``.
        message: what was wrong with it.
        index: position in a batch, counted from 0; ``None`` for a single request.
        headers: of the response, besides those that each one has.
    """

    def __init__(
        self,
        status: int,
        field: str,
        message: str,
        *,
        index: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = _shortened(field, _MAX_FIELD)
        self.message = _shortened(message, _MAX_MESSAGE)
        self.index = index
        self.headers = headers

    def body(self) -> bytes:
        """The JSON document that the client gets: ``{"error": {"field", "message"[, "index"]}}``."""
        error = {"field": self.field, "message": self.message}
        return orjson.dumps({"error": error if self.index is None else {**error, "index": self.index}})


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."

"""Errors that a caller of the policy runtime may want to tell apart."""

from __future__ import annotations


class InputError(ValueError):
    """A decision request that cannot be used.

    Attributes:
        field: dotted name of the offending field, for example ``load[3]``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class BundleError(ValueError):
    """A policy bundle that cannot be read, is incomplete, or was changed after it was written."""

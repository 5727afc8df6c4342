"""The base of errors that whoever started a job can put right."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input or an unusable place: reported as its message alone, without a traceback."""

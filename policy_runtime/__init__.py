"""What a deployed scaling policy needs and nothing more: NumPy and onnxruntime, never torch, never boto3.

The training environment, the endpoint and the edge component all use this package, so that a feature, a rule or
a guardrail means the same thing in each of them.
"""

from policy_runtime.bundle import Bundle, builtin_bundle, read_bundle, write_bundle
from policy_runtime.decision import Policy, decide
from policy_runtime.errors import BundleError, InputError

__all__ = [
    "Bundle",
    "BundleError",
    "InputError",
    "Policy",
    "builtin_bundle",
    "decide",
    "read_bundle",
    "write_bundle",
]

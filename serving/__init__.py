"""The endpoint: an HTTP server with SageMaker's contract around ``policy_runtime.decide``.

It keeps nothing between requests; the caller carries ``state`` from one record to the next request.
"""

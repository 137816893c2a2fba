"""Policies and what runs them: the runner, the supervisor, runtimes.

In: observations. Out: action chunks that were checked before they reach a motor.
"""

from flyball.policies.policy import ActionChunk, Policy

__all__ = ["ActionChunk", "Policy"]

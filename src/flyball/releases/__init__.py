"""Releases: a gate, a signature, a registry. In: a policy and the reports about it. Out: a signed release, or a refusal."""

"""The fleet: a hub on this machine, an agent at every robot, and the rollout that leads releases to them.

In: releases, orders. Out: logs that are durable before they are acknowledged, incidents, statuses, rollouts.
"""

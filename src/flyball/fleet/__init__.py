"""The fleet: hub, edge agent, rollout. In: signed releases and work orders. Out: logs, durably."""

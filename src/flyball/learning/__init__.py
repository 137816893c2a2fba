"""Learning: one folder per method. In: demonstrations. Out: a policy file that runs without a trainer."""

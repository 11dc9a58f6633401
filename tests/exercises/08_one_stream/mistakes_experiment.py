"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {"a_warmer_plan": {"answer": "lower", "line": "beta = 0.5  # change this line", "changed": "beta = 5"}}

"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {"not_shifted": {"answer": "fall to 0", "line": "shift = 1  # change this line", "changed": "shift = 0"}}

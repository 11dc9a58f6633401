"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {"second_look": {"answer": "1/2", "line": "keep = 0  # change this line", "changed": "keep = 1"}}

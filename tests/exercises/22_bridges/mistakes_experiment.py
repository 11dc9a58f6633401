"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {"both_closed": {"answer": "never", "line": "start = 0.5  # change this line", "changed": "start = 0.0"}}

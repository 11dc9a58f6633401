"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {"half_a_box_off": {"answer": "1/3", "line": "moved = 0  # change this line", "changed": "moved = 0.5"}}

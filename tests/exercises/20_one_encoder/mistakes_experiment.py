"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "left_alone": {"answer": "about five", "line": "weight = 1.0  # change this line", "changed": "weight = 0.0"}
}

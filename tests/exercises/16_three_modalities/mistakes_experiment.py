"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "more_candidates": {"answer": "stay", "line": "candidates = 1  # change this line", "changed": "candidates = 5"}
}

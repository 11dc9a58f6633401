"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "in_eight_parts": {"answer": "the contrastive one", "line": "parts = 1  # change this line", "changed": "parts = 8"}
}

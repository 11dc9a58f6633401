"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "without_the_root": {
        "answer": "fall",
        "line": "query @ key.T / width**0.5  # change this line",
        "changed": "query @ key.T",
    }
}

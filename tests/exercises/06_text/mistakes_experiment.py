"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "no_length_penalty": {
        "answer": "shorter",
        "line": "length_penalty = 1.0  # change this line",
        "changed": "length_penalty = 0.0",
    }
}

"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "a_codebook_far_away": {
        "answer": "very few",
        "line": "restart_threshold = 0.0  # change this line",
        "changed": "restart_threshold = 0.3",
    }
}

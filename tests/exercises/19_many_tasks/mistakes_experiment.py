"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "without_matching": {
        "answer": "both half-way between them",
        "line": "matched = True  # change this line",
        "changed": "matched = False",
    }
}

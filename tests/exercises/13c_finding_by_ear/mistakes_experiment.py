"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "one_mean_for_all": {
        "answer": "next to none",
        "line": "own_mean = True  # change this line",
        "changed": "own_mean = False",
    }
}

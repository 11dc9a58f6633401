"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "both_at_once": {
        "answer": "they move away",
        "line": "in_turn = True  # change this line",
        "changed": "in_turn = False",
    }
}

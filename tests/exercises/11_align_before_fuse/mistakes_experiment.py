"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "a_slower_teacher": {"answer": "0.63", "line": "momentum = 0.9  # change this line", "changed": "momentum = 0.995"}
}

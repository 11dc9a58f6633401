"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "a_higher_temperature": {
        "answer": "higher",
        "line": "temperature = 0.1  # change this line",
        "changed": "temperature = 1",
    }
}

"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "half_the_noise": {
        "answer": "6 dB",
        "line": "noise = 1 * noise  # change this line",
        "changed": "noise = 0.5 * noise",
    }
}

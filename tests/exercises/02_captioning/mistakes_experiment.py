"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "greedy_baseline": {
        "answer": "the spread alone",
        "line": "baseline = torch.tensor(0.0)  # change this line",
        "changed": "baseline = reward[chance.argmax()]",
    }
}

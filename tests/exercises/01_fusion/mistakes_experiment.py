"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "votes_for_xor": {
        "answer": "ln 2",
        "line": "combine = torch.mul  # change this line",
        "changed": "combine = torch.add",
    }
}

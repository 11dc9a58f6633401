"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "a_sharper_guess": {"answer": "rise", "line": "logit_scale = 1  # change this line", "changed": "logit_scale = 100"}
}

"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "one_convolution_more": {
        "answer": "half of",
        "line": "[10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]  # change this line",
        "changed": "[10, 3, 3, 3, 3, 2, 2, 2], [5, 2, 2, 2, 2, 2, 2, 2]",
    }
}

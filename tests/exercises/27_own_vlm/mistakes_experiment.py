"""What an experiment comes to, and the change that it asks for: ``EXPERIMENTS[name]``."""

EXPERIMENTS = {
    "random_language_model": {
        "answer": "nearly all",
        "line": 'llama = load_pretrained("zoo/llama-collages")  # change this line',
        "changed": 'llama = untrained_twin(load_pretrained("zoo/llama-collages"))',
    }
}

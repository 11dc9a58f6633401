"""Plain answers to the tasks about the zoo; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch


def answered_right(befores, questions, answers):
    # The weights come with the package, and so does their tokenizer.
    from mmlearn import load_pretrained, load_processor

    model, tokenizer = load_pretrained("zoo/llama-collages"), load_processor("zoo/llama-collages").tokenizer
    right = 0
    for before, question, answer in zip(befores, questions, answers):
        # The text begins with the start token; then come the notes, and then the question.
        tokens = [tokenizer.start_token, *tokenizer.prompt(before).tolist(), *tokenizer.prompt(question).tolist()]
        wanted = tokenizer.prompt(answer).tolist()
        # The logits at the last position are of the next token: write the likeliest, and ask again.
        for _ in wanted:
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).token_logits[0, -1]
            tokens.append(int(logits.argmax()))
        # An answer is right if every token of it is.
        right += tokens[-len(wanted) :] == wanted
    # The share of all questions.
    return right / len(questions)

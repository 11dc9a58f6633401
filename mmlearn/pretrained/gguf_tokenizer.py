"""The tokenizer of a GGUF, built by the ``tokenizers`` library, and its template of a chat."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from mmlearn.data.tokenizer import LLAMA3_WORDS, QWEN2_WORDS
from mmlearn.pretrained.gguf_file import GGUF

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of tokens
SPACE = "▁"  # of SentencePiece
CLASS = "PreTrainedTokenizerFast"  # of Transformers: all that there is to know is in tokenizer.json
TEMPLATE = "chat_template.jinja"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _words(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), BYTES])


# How a text is cut into words, each of which becomes tokens, by what a GGUF calls it.
GPT2_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
WORDS = {
    "gpt-2": GPT2_WORDS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2_WORDS]),
    "llama-bpe": _words(LLAMA3_WORDS),
    "qwen2": _words(QWEN2_WORDS),
}


def tokenizer_files(content: GGUF, config: dict[str, Any]) -> dict[str, str]:
    """``tokenizer.json``, what Transformers wants beside it, and ``chat_template.jinja`` where there is one.

    Raises ``ValueError`` for a tokenizer that is missing, contradicts itself, or is of a kind that is not built here.
    """
    settings, where = content.settings, content.path
    kind = settings.get("tokenizer.ggml.model")
    tokens, types = (settings.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    if kind not in ("gpt2", "llama"):
        raise ValueError(f"{where} has a tokenizer {kind!r:.40}; gpt2 (bytes) and llama (SentencePiece) are read here.")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{where} has no list of tokens.")
    types = [NORMAL] * len(tokens) if types is None else types
    if len({*tokens}) != len(tokens) or not isinstance(types, list) or len(types) != len(tokens):
        raise ValueError(f"{where}: its tokens are not different ones, each with its type.")
    if len(tokens) > config["vocab_size"]:
        raise ValueError(f"{where} has {len(tokens):,} tokens, and weights for {config['vocab_size']:,}.")
    special = _special_tokens(tokens, config, where)
    try:
        engine = _bytes(settings, tokens, where) if kind == "gpt2" else _sentence_piece(settings, tokens, types, where)
        added = [(token, role) for token, role in zip(tokens, types) if role in (CONTROL, USER_DEFINED)]
        engine.add_tokens([AddedToken(token, special=role == CONTROL, normalized=False) for token, role in added])
        if start := special.get("bos_token"):
            number = [(start, tokens.index(start))]
            engine.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=number)
        text = engine.to_str()
    except ValueError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"{where} has a tokenizer that cannot be built: {' '.join(str(error).split()):.200}"
        ) from error
    template = settings.get("tokenizer.chat_template")
    files = {"tokenizer.json": text, "tokenizer_config.json": json.dumps({"tokenizer_class": CLASS} | special)}
    return files | ({TEMPLATE: template} if isinstance(template, str) else {})


def _special_tokens(tokens: list[str], config: dict[str, Any], where: Path) -> dict[str, str]:
    """Special tokens by their names. ``ValueError`` for one that is not among the tokens."""
    found = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        number = config[f"{name}_id"]
        for one in number if isinstance(number, list) else [] if number is None else [number]:
            if type(one) is not int or not 0 <= one < len(tokens):
                raise ValueError(
                    f"{where}: {name} is {one!r:.40}, and tokens are numbered from 0 to {len(tokens) - 1}."
                )
            found.setdefault(name, tokens[one])
    if "eos_token" not in found:
        raise ValueError(f"{where} does not say which token ends a text (tokenizer.ggml.eos_token_id).")
    return found


def _bytes(settings: dict[str, Any], tokens: list[str], where: Path) -> Tokenizer:
    """Byte-level BPE, as in GPT-2: what is merged is listed."""
    cut, merges = settings.get("tokenizer.ggml.pre", "gpt-2"), settings.get("tokenizer.ggml.merges")
    if cut not in WORDS:
        raise ValueError(f"{where} cuts a text into words as {cut!r:.40}; known here are {', '.join(WORDS)}.")
    pairs = [tuple(merge.split(" ")) for merge in merges] if isinstance(merges, list) else []
    known = {*tokens}
    if not pairs or any(len(pair) != 2 or not {*pair, "".join(pair)} <= known for pair in pairs):
        raise ValueError(f"{where}: tokenizer.ggml.merges should hold pairs of its tokens that make up another.")
    model = BPE({token: i for i, token in enumerate(tokens)}, pairs, ignore_merges=cut == "llama-bpe")
    engine = Tokenizer(model)
    if cut == "qwen2":
        engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer, engine.decoder = WORDS[cut], decoders.ByteLevel()
    return engine


def _sentence_piece(settings: dict[str, Any], tokens: list[str], types: list[int], where: Path) -> Tokenizer:
    """SentencePiece's BPE, as in Llama 2: of two merges that are possible, that comes first whose result scores higher.

    A character that is no token becomes tokens of its bytes. Source: Sennrich et al. 2016; Kudo & Richardson 2018.
    """
    scores = settings.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ValueError(f"{where}: tokenizer.ggml.scores should hold a number for each token.")
    number = {token: i for i, token in enumerate(tokens)}
    merges = [
        (-scores[i], number[token[:cut]], number[token[cut:]], token[:cut], token[cut:])
        for i, token in enumerate(tokens)
        if types[i] == NORMAL
        for cut in range(1, len(token))
        if token[:cut] in number and token[cut:] in number
    ]
    unknown = next((token for token, kind in zip(tokens, types) if kind == UNKNOWN), None)
    pairs = [(one, two) for *_, one, two in sorted(merges)]
    engine = Tokenizer(BPE(number, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend(SPACE)] if settings.get("tokenizer.ggml.add_space_prefix", True) else []
    engine.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    engine.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return engine

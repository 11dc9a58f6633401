"""Reading a published configuration, with the defaults that its format leaves unwritten."""

from typing import Any, Self

BERT_DROPOUTS = dict(dropout=("hidden_dropout_prob", 0.1), attention_dropout=("attention_probs_dropout_prob", 0.1))
VIT_DROPOUTS = dict(dropout=("hidden_dropout_prob", 0.0), attention_dropout=("attention_probs_dropout_prob", 0.0))
CLIP_DROPOUTS = dict(dropout=None, attention_dropout=("attention_dropout", 0.0))

# Published name → ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# Second names that a format reads: model_type → second name → the name under which it is read here.
ENCODER_DECODER = dict(
    hidden_size="d_model", num_hidden_layers="encoder_layers", num_attention_heads="encoder_attention_heads"
)
SECOND_NAMES = {
    "bart": ENCODER_DECODER,
    "detr": ENCODER_DECODER,
    "distilbert": dict(hidden_size="dim", num_hidden_layers="n_layers", num_attention_heads="n_heads"),
    "gpt2": dict(hidden_size="n_embd", num_hidden_layers="n_layer", num_attention_heads="n_head")
    | dict(max_position_embeddings="n_positions"),
    "t5": dict(hidden_size="d_model", num_hidden_layers="num_layers", num_attention_heads="num_heads", head_dim="d_kv"),
    "whisper": ENCODER_DECODER | dict(num_key_value_heads="encoder_attention_heads"),
    "clip": {f"{part}_config_dict": f"{part}_config" for part in ("text", "vision")},
    "flava": {f"{part}_config_dict": f"{part}_config" for part in ("text", "image", "multimodal", "image_codebook")},
}


class Settings:
    """One object of a ``config.json``; ``where`` says which, for messages. All raise ``ValueError``.

    What stands under a second name of its format takes the position of what stands under the first, as in Transformers.
    The older ``…_config_dict`` are such names, of which null says nothing; a format that has none is refused with one.
    """

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise ValueError(f"{where} should be a JSON object, not {values!r}.")
        values = {name: value for name, value in values.items() if value is not None or not name.endswith("_dict")}
        second = SECOND_NAMES.get(str(values.get("model_type")), {})
        renamed = {second[name]: name for name in values if name in second}
        if unread := [name for name in values if name.endswith("_config_dict") and name not in second]:
            raise ValueError(f"{unread[0]} in {where} is not read here: put it under {unread[0][: -len('_dict')]}.")
        self.values = values | {name: values[other] for name, other in renamed.items()}
        notes = [f"{other} for {name}" for name, other in renamed.items() if values.get(name) != values[other]]
        self.where = f"{where} (with {', '.join(notes)})" if notes else where

    def get(self, name: str, default: Any) -> Any:
        """The value, or the format's default where none is written.

        It must be of the default's type, and numbers be such as can be built. null is no value.
        """
        return self._checked(name, self.values.get(name, default), default)

    def optional(self, name: str, default: int | None = None) -> int | None:
        """A number, or None where the format has or writes null: no token plays this part, or there is a rule."""
        value = self.values.get(name, default)
        return None if value is None else self._checked(name, value, default or 0)

    def classes(self, *, learned: bool = False) -> int:
        """How many classes a classifier has. One class is refused: Transformers then learns a number.

        So it does where ``problem_type`` says so, of a classifier whose loss is ``learned`` by what that says.
        """
        if learned:
            self.refuse("problem_type", "regression")
        labels = self.get("id2label", {}) if self.values.get("id2label") is not None else None
        name = "num_labels" if labels is None or "num_labels" in self.values else "id2label"  # the first comes before
        count = self.get(name, 2) if labels is None or name == "num_labels" else len(labels)
        if count < 2:
            raise ValueError(f"{name} in {self.where} has {count} classes; a classifier is built here for two or more.")
        return count

    def _checked(self, name: str, value: Any, default: Any) -> Any:
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"{name} in {self.where} should be like {default!r}, not {value!r}.")
        least = 0 if isinstance(default, float) or name.endswith("token_id") else 1
        most = 1000 if name.endswith("layers") else 2**31 - 1  # layers take time to build even without memory
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not least <= value <= most:  # neither is NaN
            raise ValueError(
                f"{name} in {self.where} should be a number from {least} to {most}, like {default!r}, not {value!r}."
            )
        return float(value) if isinstance(default, float) else value

    def part(self, name: str) -> Self:
        return type(self)(self.values.get(name) or {}, f"{name} of {self.where}")

    def size(self, name: str, default: int) -> int | tuple[int, int]:
        """One number for a square, or [height, width]."""
        value = self.values.get(name)
        if isinstance(value, list) and len(value) == 2:
            return self._checked(name, value[0], default), self._checked(name, value[1], default)
        return self.get(name, default)

    def activation(self, default: str, name: str = "hidden_act") -> str:
        """Our name of the activation that stands under this ``name``."""
        value = self.get(name, default)
        if value not in ACTIVATIONS:
            raise ValueError(f"{name} {value!r} in {self.where} is not built here; known are {', '.join(ACTIVATIONS)}.")
        return ACTIVATIONS[value]

    def vocabulary(self, vocab_size: int, pad_token: int | None, *, optional: bool = True) -> dict[str, Any]:
        """How many tokens there are and which of them is padding; this may be null where it is ``optional``.

        Arguments are the format's defaults.
        """
        count = self.get("vocab_size", vocab_size)
        pad = self.optional("pad_token_id", pad_token) if optional else self.get("pad_token_id", pad_token)
        if pad is not None and pad >= count:
            raise ValueError(f"pad_token_id {pad} in {self.where} is none of the {count} tokens of vocab_size, from 0.")
        return dict(vocab_size=count, pad_token=pad)

    def transformer(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_width: int = 3072,
        activation: str = "gelu",
        norm_epsilon: float = 1e-12,
        dropout: tuple[str, float] | None,
        attention_dropout: tuple[str, float],
    ) -> dict[str, Any]:
        """The fields of a ``TransformerConfig``; arguments are the format's defaults, and what it calls dropout."""
        return dict(
            width=self.get("hidden_size", width),
            depth=self.get("num_hidden_layers", depth),
            num_heads=self.get("num_attention_heads", num_heads),
            mlp_width=self.get("intermediate_size", mlp_width),
            activation=self.activation(activation),
            norm_epsilon=self.get("layer_norm_eps", norm_epsilon),
            **self.dropouts(dropout, attention_dropout),
        )

    def dropouts(self, dropout: tuple[str, float] | None, attention_dropout: tuple[str, float]) -> dict[str, float]:
        """Of what branches add, if the format has it, and of attention weights."""
        return dict(dropout=self.get(*dropout) if dropout else 0.0, attention_dropout=self.get(*attention_dropout))

    def of_both(self, name: str, default: Any) -> Any:
        """What an encoder and a decoder have alike: ``encoder_…`` and ``decoder_…``."""
        one, other = (self.get(f"{stack}_{name}", default) for stack in ("encoder", "decoder"))
        if one != other:
            raise ValueError(f"encoder_{name} {one} and decoder_{name} {other} in {self.where} should be equal here.")
        return one

    def refuse(self, name: str, value: Any) -> None:
        if self.values.get(name) == value:
            raise ValueError(f"{name} = {value!r} in {self.where} is not built here.")

    def require(self, name: str, value: Any) -> None:
        if self.values.get(name, value) not in (value, None):
            raise ValueError(f"{name} = {self.values[name]!r} in {self.where} is not built here, only {value!r}.")

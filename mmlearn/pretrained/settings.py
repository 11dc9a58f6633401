"""Reading a published configuration, with the defaults that its format leaves unwritten."""

from typing import Any, Self

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


class Settings:
    """One object of a ``config.json``; ``where`` says which, for messages. All raise ``ValueError``."""

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise ValueError(f"{where} should be a JSON object, not {values!r}.")
        self.values, self.where = values, where

    def get(self, name: str, default: Any) -> Any:
        """The value, or the format's default. It must be of the default's type, and numbers be such as can be built."""
        value = self.values.get(name)
        return self._checked(name, default if value is None else value, default)

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

    def activation(self, default: str) -> str:
        name = self.get("hidden_act", default)
        if name not in ACTIVATIONS:
            raise ValueError(
                f"hidden_act {name!r} in {self.where} is not built here; known are {', '.join(ACTIVATIONS)}."
            )
        return ACTIVATIONS[name]

    def transformer(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_width: int = 3072,
        activation: str = "gelu",
        norm_epsilon: float = 1e-12,
        dropout: tuple[str, float],
    ) -> dict[str, Any]:
        """The fields of a ``TransformerConfig``; arguments are the format's defaults, and what it calls dropout."""
        return dict(
            width=self.get("hidden_size", width),
            depth=self.get("num_hidden_layers", depth),
            num_heads=self.get("num_attention_heads", num_heads),
            mlp_width=self.get("intermediate_size", mlp_width),
            activation=self.activation(activation),
            norm_epsilon=self.get("layer_norm_eps", norm_epsilon),
            dropout=self.get(*dropout),
        )

    def refuse(self, name: str, value: Any) -> None:
        if self.values.get(name) == value:
            raise ValueError(f"{name} = {value!r} in {self.where} is not built here.")

    def require(self, name: str, value: Any) -> None:
        if self.values.get(name, value) not in (value, None):
            raise ValueError(f"{name} = {self.values[name]!r} in {self.where} is not built here, only {value!r}.")

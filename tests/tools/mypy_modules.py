"""A plugin of mypy: what a module of PyTorch holds under a name may be a layer, a parameter or a buffer.

PyTorch says ``Tensor | Module`` of each, which no call and no sum fits. mypy still checks what a class itself defines.
"""

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny, UnionType, get_proper_type

MODULE = "torch.nn.modules.module.Module."


class ModuleParts(Plugin):
    """Attributes that are found by ``Module.__getattr__`` are of any type."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """What mypy asks for each attribute."""
        return _any_part if fullname.startswith(MODULE) else None


def _any_part(context: AttributeContext) -> Type:
    found = get_proper_type(context.default_attr_type)
    return AnyType(TypeOfAny.special_form) if isinstance(found, UnionType) else found


def plugin(version: str) -> type[Plugin]:
    """Where mypy begins."""
    return ModuleParts

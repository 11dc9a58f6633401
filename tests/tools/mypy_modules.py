"""A plugin of mypy: what a module of PyTorch holds under a name may be a layer, a parameter or a buffer.

PyTorch says ``Tensor | Module`` of each, which no call and no sum fits, and ``Module`` of what a list or dictionary of
modules holds, of whatever class it is. mypy still checks what a class itself defines.
"""

from collections.abc import Callable

from mypy.plugin import AttributeContext, MethodContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny, UnionType, get_proper_type

MODULE = "torch.nn.modules.module.Module."
CONTAINER = "torch.nn.modules.container."
LISTS = [f"{CONTAINER}{kind}.__{verb}__" for kind in ("ModuleList", "Sequential") for verb in ("getitem", "iter")]
ITEMS = {f"{CONTAINER}ModuleDict.__getitem__", *LISTS}


class ModuleParts(Plugin):
    """Of any type are attributes that ``Module.__getattr__`` finds, and items of a container of modules."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """What mypy asks for each attribute."""
        return _any_part if fullname.startswith(MODULE) else None

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """What mypy asks for each call of a method."""
        return _any_item if fullname in ITEMS else None


def _any_part(context: AttributeContext) -> Type:
    found = get_proper_type(context.default_attr_type)
    return AnyType(TypeOfAny.special_form) if isinstance(found, UnionType) else found


def _any_item(context: MethodContext) -> Type:
    return AnyType(TypeOfAny.special_form)


def plugin(version: str) -> type[Plugin]:
    """Where mypy begins."""
    return ModuleParts

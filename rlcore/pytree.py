"""Frozen dataclasses that JAX sees as pytrees: numbers are leaves, structure is static.

`jax.tree_util.register_dataclass` is not used. In JAX 0.10 two tree definitions of different dataclasses compare equal
when their static fields do, so that a jitted function, called with one solver and then with another that has as many
fields, now and then (where their hashes meet) runs the first one's program. Registered as here, they differ.
"""

import dataclasses
import typing

import jax

__all__ = ["pytree", "static"]


def static(default: typing.Any = dataclasses.MISSING, *, kw_only: bool = False) -> typing.Any:
    """A field of structure: hashable, part of what is compiled, never traced.

    Args: default: the field's default, none if left out; kw_only: whether it is given by name alone.
    Returns: a dataclass field. Cost: O(1).
    """
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"static": True})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def pytree(cls: type) -> type:
    """Make a class a frozen dataclass and a pytree whose definition holds the class and the `static` fields.

    Args: cls: annotated fields, those of structure marked by `static`; every field is an argument of its constructor.
    Returns: the class. Raises: ValueError for a class that is registered already. Cost: flattening is O(fields).
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    structure = tuple(field.name for field in fields if field.metadata.get("static"))
    leaves = tuple(field.name for field in fields if not field.metadata.get("static"))
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in leaves)

    def flatten(instance):
        return tuple([getattr(instance, name) for name in leaves]), tuple([getattr(instance, n) for n in structure])

    def flatten_with_keys(instance):
        children, aux = flatten(instance)
        return tuple(zip(keys, children, strict=True)), aux

    def unflatten(aux, children):
        return cls(**dict(zip(leaves, children, strict=True)), **dict(zip(structure, aux, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls

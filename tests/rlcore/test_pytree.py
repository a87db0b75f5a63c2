"""Dataclasses as pytrees: what is traced, what is static, and that no two classes are taken for each other."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

from rlcore.mdp import DenseMDP
from rlcore.nash import MMD, OMD
from rlcore.pytree import pytree, static


@pytree
class Add:
    amount: float
    name: str = static("plus")


@pytree
class Subtract:
    amount: float
    name: str = static("plus")


def test_numbers_are_leaves_and_structure_is_not():
    leaves, definition = jax.tree.flatten(Add(2.0))
    assert leaves == [2.0]
    assert jax.tree.unflatten(definition, leaves) == Add(2.0)
    assert definition == jax.tree.structure(Add(3.0)) and hash(definition) == hash(jax.tree.structure(Add(3.0)))
    assert definition != jax.tree.structure(Add(2.0, "minus"))
    ((path, _),) = jax.tree_util.tree_leaves_with_path(Add(2.0))
    assert jax.tree_util.keystr(path) == ".amount"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Add(2.0).amount = 3.0
    assert jax.jit(jax.grad(lambda add: add.amount**2))(Add(3.0)).amount == 6


def test_classes_with_equal_fields_are_different():
    # the fault of jax.tree_util.register_dataclass in JAX 0.10 that this module is for
    assert jax.tree.structure(Add(2.0)) != jax.tree.structure(Subtract(2.0))
    assert jax.tree.structure(OMD(0.5)) != jax.tree.structure(MMD(0.5))


def test_a_jitted_function_never_takes_one_class_for_another():
    # 40 classes: with definitions that compare equal, hash tables of 7-bit tags confuse some pair nearly surely
    classes = [pytree(type(f"Class{i}", (), {"__annotations__": {"amount": float}, "index": i})) for i in range(40)]
    assert len({jax.tree.structure(cls(1.0)) for cls in classes}) == 40
    assert all(jax.tree.structure(a(1.0)) != jax.tree.structure(b(1.0)) for a, b in itertools.combinations(classes, 2))
    index = jax.jit(lambda instance: instance.index + 0 * jnp.asarray(instance.amount))
    assert [int(index(cls(1.0))) for cls in classes] == list(range(40))


def test_bad_input():
    with pytest.raises(ValueError, match="Duplicate custom PyTreeDef"):
        jax.tree_util.register_pytree_node(Add, lambda a: ((), None), lambda *a: None)
    with pytest.raises(TypeError, match="amount"):
        Add()
    assert DenseMDP.__dataclass_params__.frozen

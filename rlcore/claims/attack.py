"""`attack`: search for the instance on which a statement is tightest, because random draws flatter a bound."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from rlcore.claims.bound import summarise
from rlcore.claims.check import _case_keys
from rlcore.claims.statement import Statement
from rlcore.types import PyTree, require_float64

__all__ = ["Attack", "attack"]


@dataclasses.dataclass(frozen=True)
class Attack:
    """The hardest instance found.

    instance: the instance (or the key, for a statement without generator).
    violated: the statement fails on it.
    random, best: the largest (lhs - rhs) / (|lhs| + |rhs|) among random instances, and after the search.
    tightness: lhs / rhs at the hardest instance.
    slack: (lhs - rhs) / scale there.
    method: which searches ran.
    """

    id: str
    case: int
    instance: PyTree
    violated: bool
    random: float
    best: float
    tightness: float
    slack: float
    method: str


def _split_floats(instance: PyTree):
    """(vector of the floating leaves, function that puts a vector back)."""
    leaves, tree = jax.tree.flatten(instance)
    moves = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    vector, unravel = ravel_pytree([x for x, m in zip(leaves, moves, strict=True) if m])

    def rebuild(vector, leaves):
        new = iter(unravel(vector))
        return jax.tree.unflatten(tree, [next(new) if m else x for x, m in zip(leaves, moves, strict=True)])

    return vector, rebuild


def attack(
    entry: Statement,
    *,
    case: int = 0,
    seed: int = 0,
    candidates: int = 1024,
    population: int = 16,
    gradient_steps: int = 100,
    generations: int = 150,
    setting: dict[str, Any] | None = None,
) -> Attack:
    """Search for the worst instance of a statement: random draws, projected gradients, then evolution.

    The best of `candidates` random instances are moved by normalised gradients of the relative excess, projected
    back by the statement's `project` after each step; then by a (1+1) evolution strategy with the one-fifth rule.
    Without `generator` and `project` only the random search runs; loops without a reverse derivative skip the
    gradients. The result says which.

    Args:
      entry: the statement; not a sampled or a host one.
      case: index into its cases.
      seed: of the search.
      candidates, population, gradient_steps, generations: sizes of the three phases.
      setting: keyword arguments passed to the claim, to attack a broken or varied form.

    Returns: an `Attack`.
    Raises: ValueError for a sampled or host statement or a case out of range; RuntimeError without float64.
    Cost: candidates + population * (gradient_steps * (1 + reverse) + generations) evaluations of the claim.
    """
    require_float64("claims.attack")
    if entry.host or entry.chance is not None:
        raise ValueError(f"entry: found {entry.id!r}, a host or sampled statement, expected a traceable exact one")
    if not 0 <= case < len(entry.cases):
        raise ValueError(f"case: found {case}, expected 0 to {len(entry.cases) - 1}")
    shape = entry.cases[case]
    instance_of = functools.partial(entry.generator, **shape) if entry.generator is not None else lambda key: key
    claim = functools.partial(entry.claim, **({} if entry.generator is not None else shape), **(setting or {}))
    keys = _case_keys(seed, f"{entry.id}/attack", case, candidates)

    def excess_of(instance):
        s = summarise(claim(instance))
        # A violation that the relative excess cannot measure (a NaN, a right-hand side of 0) is the hardest of all.
        unmeasured = ~s.passes & ~(s.excess > 0)
        return jnp.where(s.applies, jnp.where(unmeasured, jnp.inf, s.excess), -jnp.inf)

    start = jax.jit(lambda ks: jax.lax.map(lambda k: excess_of(instance_of(k)), ks, batch_size=128))(keys)
    population = min(population, candidates)
    top = jnp.argsort(-start)[:population]
    instances = jax.jit(jax.vmap(instance_of))(keys[top])
    random_best, method = float(start[top[0]]), "random search"
    if entry.generator is None or entry.project is None:
        best = jax.tree.map(lambda x: x[0], instances)
        return _outcome(entry, case, best, claim, random_best, random_best, method)

    _, rebuild = _split_floats(jax.tree.map(lambda x: x[0], instances))
    vectors = jax.vmap(lambda i: _split_floats(i)[0])(instances)
    others = jax.tree.leaves(instances)
    sample = jax.jit(jax.vmap(lambda k: _split_floats(instance_of(k))[0]))(keys[:256])
    spread = jnp.maximum(jnp.std(sample, axis=0), 1e-3)

    def valid(vector, kept):
        return _split_floats(entry.project(rebuild(vector, kept)))[0]

    def objective(vector, kept):
        # Through `project`, so that what it derives from the rest (a solved equilibrium) moves with it.
        return jnp.where(jnp.all(jnp.isfinite(vector)), excess_of(entry.project(rebuild(vector, kept))), -jnp.inf)

    def climb(vector, kept):
        def step(carry, t):
            x, best_x, best = carry
            value, gradient = jax.value_and_grad(objective)(x, kept)
            better = value > best
            best_x, best = jnp.where(better, x, best_x), jnp.maximum(value, best)
            direction = jnp.where(jnp.isfinite(gradient), gradient, 0.0) * spread
            length = jnp.maximum(jnp.linalg.norm(direction), 1e-300)
            pace = 0.5 * jnp.sqrt(x.size) * 0.95**t
            return (valid(x + pace * spread * direction / length, kept), best_x, best), None

        (x, best_x, best), _ = jax.lax.scan(step, (vector, vector, -jnp.inf), jnp.arange(gradient_steps, dtype=float))
        last = objective(x, kept)
        return jnp.where(last > best, x, best_x)

    def evolve(vector, kept, key):
        def step(carry, key):
            x, best, sigma = carry
            trial = valid(x + sigma * spread * jax.random.normal(key, x.shape, x.dtype), kept)
            value = objective(trial, kept)
            better = value > best
            sigma = jnp.clip(sigma * jnp.where(better, jnp.exp(0.8), jnp.exp(-0.2)), 1e-8, 1.0)
            return (jnp.where(better, trial, x), jnp.maximum(best, value), sigma), None

        carry = (vector, objective(vector, kept), jnp.asarray(0.3, vector.dtype))
        (x, best, _), _ = jax.lax.scan(step, carry, jax.random.split(key, generations))
        return x, best

    try:
        vectors = jax.jit(jax.vmap(climb))(vectors, others)
        method += ", projected gradients"
    except ValueError as error:  # reverse mode through a while_loop
        if "everse-mode" not in str(error):
            raise
        method += " (no reverse derivative: gradients skipped)"
    search_keys = jax.random.split(jax.random.fold_in(keys[0], 1), population)
    vectors, values = jax.jit(jax.vmap(evolve))(vectors, others, search_keys)
    winner = int(np.argmax(values))
    if not values[winner] > random_best:  # a random instance outside the range of `project` may be the hardest
        best = jax.tree.map(lambda x: x[0], instances)
        return _outcome(entry, case, best, claim, random_best, random_best, method + ", evolution")
    best = jax.jit(entry.project)(rebuild(vectors[winner], [x[winner] for x in others]))
    return _outcome(entry, case, best, claim, random_best, float(values[winner]), method + ", evolution")


def _outcome(entry, case, best, claim, random_best, value, method) -> Attack:
    summary = jax.jit(lambda i: summarise(claim(i)))(best)
    return Attack(
        id=entry.id,
        case=case,
        instance=jax.tree.map(np.asarray, best) if entry.generator is not None else best,
        violated=bool(summary.applies & ~summary.passes),
        random=random_best,
        best=value,
        tightness=float(summary.tightness),
        slack=float(summary.slack),
        method=method,
    )

"""Multi-layer perceptrons."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "elu": jax.nn.elu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


class Linear(eqx.Module):
    """x W + b, with weights and bias uniform in ±1/√inputs, as PyTorch's."""

    weight: Float[Array, "i o"]
    bias: Float[Array, " o"]

    @staticmethod
    def init(inputs: int, outputs: int, key: PRNGKeyArray) -> "Linear":
        bound = inputs**-0.5
        draw = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        keys = jax.random.split(key)
        return Linear(draw(keys[0], (inputs, outputs)), draw(keys[1], (outputs,)))


class MLP(eqx.Module):
    """Linear layers with an activation between them. Rows of `x` (..., i) are examples: a product of two matrices."""

    layers: tuple[Linear, ...]
    activation: str = eqx.field(static=True)

    @staticmethod
    def init(inputs: int, hidden: Sequence[int], outputs: int, activation: str, key: PRNGKeyArray) -> "MLP":
        sizes = (inputs, *hidden, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [Linear.init(i, o, k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]
        return MLP(tuple(layers), activation)

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](x @ layer.weight + layer.bias)
        return x @ self.layers[-1].weight + self.layers[-1].bias


def networks(count: int, inputs: int, hidden: Sequence[int], outputs: int, activation: str, key: PRNGKeyArray) -> MLP:
    """Several networks of one shape as one, with a leading axis: one batched product instead of many."""
    return jax.vmap(lambda key: MLP.init(inputs, hidden, outputs, activation, key))(jax.random.split(key, count))


def twins(inputs: int, hidden: Sequence[int], outputs: int, activation: str, key: PRNGKeyArray) -> MLP:
    return networks(2, inputs, hidden, outputs, activation, key)


def both(pair: MLP, x: Float[Array, "*batch i"]) -> Float[Array, "n *batch o"]:
    """What each of the twins says, or of however many there are."""
    return jax.vmap(lambda network: network(x))(pair)


def moments_of(adam: optax.GradientTransformation, parameters: Any) -> optax.OptState:
    """What an optimiser starts with."""
    return adam.init(parameters)


def descend[T](
    adam: optax.GradientTransformation, gradient: T, moments: optax.OptState, parameters: T
) -> tuple[T, optax.OptState]:
    """One step of an optimiser: new parameters, new moments."""
    steps, moments = adam.update(gradient, moments)  # pyright: ignore[reportArgumentType]
    return optax.apply_updates(parameters, steps), moments  # pyright: ignore


def polyak[T](target: T, online: T, tau: float) -> T:
    """target + tau · (online − target); a copy at tau = 1."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online) if tau < 1 else online

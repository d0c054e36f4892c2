"""How much TensorFlow's graph optimizer, Grappler, does for a graph before its first call.

On a CPU all of it takes longer than tracing, and nearly all that makes a small model's epochs
faster comes from pruning, common subexpressions, arithmetic and dependencies. The other parts are
for an accelerator's layouts and memory, or fuse what a training step keeps apart for its gradients.
A second round finds nothing that the first has not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context

_LEFT_OUT = ("layout_optimizer", "remapping", "shape_optimization", "implementation_selector")


def optimizer_options() -> context.FunctionCallOptions:
    """What graphs are to be called with on this machine; on an accelerator all is left as it is."""
    config = ConfigProto()
    config.CopyFrom(context.context().config)
    if all(device.device_type == "CPU" for device in tf.config.list_logical_devices()):
        rewriting = config.graph_options.rewrite_options
        for part in _LEFT_OUT:
            setattr(rewriting, part, RewriterConfig.OFF)
        rewriting.memory_optimization = RewriterConfig.NO_MEM_OPT
        rewriting.disable_tfg_optimizer = True
        rewriting.meta_optimizer_iterations = RewriterConfig.ONE
    return context.FunctionCallOptions(config_proto=config)


@contextlib.contextmanager
def calling_with(options: context.FunctionCallOptions) -> Iterator[None]:
    """Inside, this thread calls graphs with these options."""
    running = context.context()
    before = running.function_call_options
    running.function_call_options = options
    try:
        yield
    finally:
        running.function_call_options = before

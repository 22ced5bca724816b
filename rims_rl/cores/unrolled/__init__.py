"""The RIM's time loop written out by hand in PyTorch's operations: for GPUs, and where the loop in C does not serve.

Forward and backward are one node of the graph. Nothing inside the loops is recorded by autograd or allocated: every
operation writes into a view of a buffer that was made before. The pieces are the paper's steps, each a pair: one that
prepares the step forward, and, right below, one that prepares its backward step. Preparing cuts the buffers into
views, so that a step is only its few operations. Weights' gradients are one product each over all steps, afterwards.

On a GPU the whole loop is captured as a graph and replayed (`rims_rl.cores.graphs`).
"""

from rims_rl.cores.unrolled.loop import run
from rims_rl.cores.unrolled.plan import Inputs

__all__ = ["Inputs", "run"]

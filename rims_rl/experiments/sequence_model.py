"""A sequence model of the experiments: something that reads the input, a core, and a linear map to the outputs."""

from __future__ import annotations

from torch import Tensor, nn

from rims_rl.cores.base import RecurrentCore


class SequenceModel(nn.Module):
    """Input map, core and output map; every sequence starts from the core's initial state (nothing is carried over)."""

    def __init__(self, read: nn.Module, core: RecurrentCore, outputs: int, dropout: float = 0.0) -> None:
        """Put the parts together.

        Args:
            read: maps the raw inputs (T, B, ...) to vectors (T, B, I), for example an embedding of tokens.
            core: a core whose input size is I.
            outputs: how many numbers come out at each step.
            dropout: probability by which the core's inputs and outputs are dropped in training; 0 for none.
        """
        super().__init__()
        self.read = read
        self.core = core
        self.write = nn.Linear(core.output_size, outputs)
        self.drop = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of every step (T, B, outputs)."""
        return self._written(self._memories(inputs))

    def last(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the last step alone (B, outputs)."""
        return self._written(self._memories(inputs)[-1])

    def activity(self, inputs: Tensor) -> Tensor | None:
        """Return which units were active at each step, (T, B, K) of bool, or None for a core without such units."""
        vectors = self.read(inputs)
        _, _, found = self.core.diagnose(vectors, self.core.initial_state(vectors.shape[1]))
        return found.get("active")

    def _memories(self, inputs: Tensor) -> Tensor:
        """Return the core's outputs (T, B, O)."""
        vectors = self.drop(self.read(inputs))
        memories: Tensor = self.core(vectors, self.core.initial_state(vectors.shape[1]))[0]
        return memories

    def _written(self, memories: Tensor) -> Tensor:
        outputs: Tensor = self.write(self.drop(memories))
        return outputs

"""What every test shares: one thread for PyTorch, so that tests are as fast beside each other as alone."""

from __future__ import annotations

import torch

torch.set_num_threads(1)

"""Sequential MNIST at new resolutions (Goyal et al. 2021, appendix D.3).

* experiment.py: settings, trial, table; data.py: digits as sequences of pixels; figures.py: plots.
"""

from rims_rl.experiments.sequential_mnist.experiment import SequentialMnist

__all__ = ["SequentialMnist"]

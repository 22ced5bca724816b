"""Experts that compete learn inverse mechanisms (Parascandolo et al., Learning Independent Causal Mechanisms, ICML 2018).

* experiment.py: settings, table; trial.py: what is trained and tested; competition.py: experts, discriminator and the
  game between them; transformations.py: what is done to digits and letters; figures.py: plots.
"""

from rims_rl.experiments.inverse_mechanisms.experiment import InverseMechanisms

__all__ = ["InverseMechanisms"]

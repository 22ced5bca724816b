"""Experts that compete learn inverse mechanisms (Parascandolo et al. 2018, Learning Independent Causal Mechanisms).

* experiment.py: settings, table; trial.py: what is trained and tested; competition.py: experts, discriminator and the
  game between them; transformations.py: what is done to digits and letters; figures.py: plots.
"""

from rims_rl.experiments.inverse_mechanisms.experiment import InverseMechanisms

__all__ = ["InverseMechanisms"]

"""Bouncing balls: predict the next picture, then many alone (Goyal et al. 2021, section 4.2 and appendices D.4, D.5).

* experiment.py: settings, trial, table; data.py: sequences; network.py: encoder, core, decoder;
* scores.py: cross entropy, F1, what copying achieves; drawing.py: plots, film strips, videos.
"""

from rims_rl.experiments.bouncing_balls.experiment import BouncingBalls

__all__ = ["BouncingBalls"]

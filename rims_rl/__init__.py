"""Recurrent Independent Mechanisms as the memory of reinforcement-learning agents.

This door is light: it imports torch, but not Stable-Baselines3, gymnasium or wandb. Agents are in
`rims_rl.agents`, environments in `rims_rl.envs`.
"""

__version__ = "0.1.0"

"""The paper's tasks, one command each: `rims-rl experiment copying | adding | sequential-mnist | ...`.

* config.py, presets.py: the settings of an experiment; variants.py: its models, of equal size;
* experiment.py: what a task gives to the runner; trial.py: what it gives to the training loop;
* loop.py: one trial, from a seed or a checkpoint to its result; workers.py: trials side by side in processes;
* runner.py: the whole experiment; folder.py, report.py, figures.py, display.py, tracking.py: what is kept and shown;
* copying.py, adding.py, ablations.py, control.py, sequential_mnist, bouncing_balls, inverse_mechanisms: the tasks;
* robustness: trained agents in changed worlds, which is not a task of this loop: `rims-rl robustness`.
"""

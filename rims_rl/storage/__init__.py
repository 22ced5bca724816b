"""Writing to disk and reading back, whole or not at all and never as code; the states of the random generators.

* tensor_files.py: tensors with a JSON manifest in one `.safetensors` file, and text files, written atomically;
* trees.py: nested Python values as JSON plus tensors;
* random_states.py: the states of the global random generators.
"""

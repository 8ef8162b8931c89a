"""Files that PyTorch writes, told apart by what is in them and read without running anybody's code.

pickles.py   what a pickle would import, read from its opcodes; nothing is unpickled
kinds.py     which of PyTorch's formats a file is
weights.py   tensors by name, of a state dict, a checkpoint or a .safetensors file
fitting.py   those tensors into a network: nesting, prefixes, and what does not fit
"""

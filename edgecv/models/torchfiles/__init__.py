"""Files that PyTorch writes, told apart by what is in them and read without running anybody's code.

pickles.py   what a pickle would import, read from its opcodes; nothing is unpickled
kinds.py     which of PyTorch's formats a file is
weights.py   tensors by name, of a state dict, a checkpoint or a .safetensors file
fitting.py   those tensors into a network: nesting, prefixes, and what does not fit
archive.py   a zip archive member by member, checked, and written anew
script.py    TorchScript, loaded after its code was looked through
program.py   programs of torch.export, loaded after what could run was taken out
convert.py   both to an .onnx file, compared with PyTorch
"""

"""Layers as products of smaller ones: W ≈ A B, or W of a structure with few parameters.

form.py        a layer's shape, and what every factorised form can tell of itself
svd.py spatial.py tucker2.py cp.py grouped.py     one form each
evbmf.py       the rank that noise leaves, in closed form
covariance.py  E[x xᵀ] of what a layer reads
layers.py      which layers of a network can be factorised
ranks.py       ranks by energy, EVBMF, or a share of the MACs
timing.py      layers and their factors on the targets' own engines
choice.py      ranks by measured time
structured.py  circulant and Toeplitz-like dense layers
projection.py  a dense layer's nearest structured one
history.py     the edits: replay and one line of history
"""

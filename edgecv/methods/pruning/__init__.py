"""Pruning: which channels and connections matter, what they cost on a target, and taking them out.

groups.py      channels that have to go together, by the dependency graph
criteria/      a score per channel of a group, one criterion a file
shapes.py      layers, MACs and bytes for any widths
tables.py      milliseconds of layers by width, measured on the engine (clock.py: the child)
whole.py       milliseconds of whole pruned networks beside the dense one
frontier.py    widths by importance lost for what they win; fit.py: until the measure is right
rounds.py      score, choose, cut, tune, over and over; tuning.py: what trains
connections.py single weights: masks, schedules, N:M
"""

"""Networks and operators of every kind, for `any_network.py` and `operators.py`."""

"""Small and realistic random networks, which `benchmarks/random_networks.py` exports."""

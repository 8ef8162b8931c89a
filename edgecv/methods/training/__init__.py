"""Training: one loop for `train` and for the fine-tuning after other stages."""

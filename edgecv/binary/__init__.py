"""Networks of one bit: kernels in C (`c/`), their library, and what it computes."""

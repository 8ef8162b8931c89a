"""What a student learns from a teacher: L = (1 − a) CE + a D(z_s, z_t) + m ‖z_t − z_s‖² + Σ w F.

losses.py     D of the logits (soft targets, DKD, DIST) and F of the features (hints, attention,
              similarity, relations), each a function of two tensors
features.py   which features of the two networks belong together, and adapters of other widths
teacher.py    the teacher, from a network, a Model folder or an .onnx file
distill_loss.py  the whole loss, for the training loop (`edgecv.methods.training.loop`)
"""

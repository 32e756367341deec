"""What TensorFlow, JAX and PyTorch do differently, behind one function each.

`dense` works around a TensorFlow bug, `scan` loops, `xla` compiles, `devices` runs data-parallel,
`memory` tunes the allocator, `progress` shows what takes long, `gumbel` draws; nothing here knows
the model.
"""

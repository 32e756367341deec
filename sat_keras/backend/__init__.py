"""What TensorFlow, JAX and PyTorch do differently, behind one function each, and small helpers.

`dense` works around a TensorFlow bug, `scan` loops, `xla` compiles, `devices` runs data-parallel,
`memory` tunes the allocator, `progress` shows what takes long, `gumbel` draws and `regions`
averages; nothing here knows the model.
"""

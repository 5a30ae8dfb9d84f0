"""One pure training step, and what surrounds it.

step.py          State, init_state, train_step
augment.py       level, noise, channels and SpecAugment, on the accelerator
optimizer.py     AdamW and its learning rate
progress.py      what the log and TensorBoard report
"""

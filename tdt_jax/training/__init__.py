"""One pure training step, and what surrounds it.

step.py          State, init_state, train_step
augment.py       noise, gain and SpecAugment, on the accelerator
optimizer.py     the optimizer and its schedule
progress.py      what the log and TensorBoard report
"""

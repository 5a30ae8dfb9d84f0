"""One pure training step, and what surrounds it.

step.py          State, init_state, train_step
augment.py       level, noise, channels and SpecAugment, on the accelerator
optimizer.py     AdamW and its learning rate
memory.py        what the encoder keeps for the backward pass, by the device's memory
tuning.py        what a run that fine-tunes prepares: architecture, tokens, replay, checks
resuming.py      what a run that is started again may not change
pair_losses.py   how well each text fits its audio
progress.py      what the log and TensorBoard report
"""

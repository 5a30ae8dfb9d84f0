"""Checkpoints of NVIDIA's Parakeet models, in and out: .nemo archives and Hugging Face folders.

nemo.py, hugging_face.py  a checkpoint's files: configuration, tokenizer, tensors
torch_file.py             tensors of torch's file format, without torch and without its pickles
tables.py                 which tensor of theirs is which parameter of ours, and its layout
convert.py                the one into the other, with every mismatch in one error
tokenizer_json.py         SentencePiece models to and from tokenizer.json
"""

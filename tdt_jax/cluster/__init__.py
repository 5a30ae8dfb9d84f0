"""Transcription on many machines, by engines that exist for it.

ray_data.py  a dataset of Ray Data: audio to transcripts

Whatever engine runs it, one process of a machine owns all of its accelerators, and recordings go
through `tdt_jax.inference.transcription`: the transcripts are those of `tdt-jax transcribe`.
"""

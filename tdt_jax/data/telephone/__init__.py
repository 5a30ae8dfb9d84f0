"""Connected telephone speech, composed from recordings of single words.

grammar.py       texts: telephone numbers, digits, dates, amounts, times
compose.py       Telephone: recordings joined to utterances of those texts
batches.py       training batches of these utterances
asterisk_en/     the recordings, with their licence
"""

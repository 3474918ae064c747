"""Layouts of released weights, one file each, found by name.

A file holds its CARD (`segbench.core.cards.FormatCard`), `file_name(own)` (the file's name of a tensor of the target)
and, where names have variants or the architecture must be derived first, `renamed(state)`, called before it. The facts
of a layout come from the source that its card names; no code of others is in here.
"""

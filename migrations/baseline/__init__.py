"""The live schema, written out for revision 20230321_232555.

It does not use the models, which change with later revisions: this revision must not change.
"""

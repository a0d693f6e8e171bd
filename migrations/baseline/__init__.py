"""What revision 20230321_232555 makes: the live schema, written out.

The models are not asked: they change with later revisions, and this one must not.
"""

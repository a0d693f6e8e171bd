"""Read the cells of Excel workbooks (.xlsx) as a stream."""

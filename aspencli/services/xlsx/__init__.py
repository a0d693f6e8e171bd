"""Reading the cells of Excel workbooks (.xlsx), streamed."""

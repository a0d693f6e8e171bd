"""Trees: from the samples of a run to the Auspice JSON that shows them."""

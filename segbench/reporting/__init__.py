"""Tables, figures and the page of a run, rendered from its score rows and its record alone."""

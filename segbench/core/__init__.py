"""Facts and nouns that everything else asks; imports nothing heavier than Snakemake itself needs."""

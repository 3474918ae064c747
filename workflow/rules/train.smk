# One job trains one (model, scope, fold, seed). Weights and resumable state lie beside the declared output.


rule train:
    """Train to the end, or record the failure as data."""
    input:  # without names: a named list takes 1 kB in each of thousands of jobs
        lambda wildcards: checked(run.request_train, wildcards.job),
        lambda wildcards: run.preprocessed_of(wildcards.job),
        lambda wildcards: run.source_of(wildcards.job),
        # Preprocessing waits for them too, but Snakemake takes an index made anew with the same content for unchanged.
        run.paths.splits,
    output:
        run.paths.train("{job}") / OUTCOME,
    log:
        run.paths.log("train", "{job}"),
    benchmark:
        run.paths.benchmark("train", "{job}")
    conda:
        NETWORK_ENVIRONMENT
    threads: 1
    resources:
        gpu=1,
        mem_mb=2000,
    params:
        config=run.paths.config,
    shell:
        # `exec`: a signal of a scheduler reaches Python, which saves the state.
        "exec python -m segbench train --config {params.config:q} --job {wildcards.job} --threads {threads}"
        " >{log:q} 2>&1"

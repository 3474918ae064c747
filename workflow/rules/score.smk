# Predict and score each job's test cases, then gather all rows into the one table.


rule evaluate:
    """Predict and score one checkpoint, or one control, over its test cases; scores.csv lies beside the outcome."""
    input:
        lambda wildcards: checked(run.request_evaluate, wildcards.job),
        lambda wildcards: run.evaluated_from(wildcards.job),
        run.paths.splits,
    output:
        run.paths.evaluate("{job}") / OUTCOME,
    log:
        run.paths.log("evaluate", "{job}"),
    benchmark:
        run.paths.benchmark("evaluate", "{job}")
    conda:
        NETWORK_ENVIRONMENT
    threads: 1
    resources:
        gpu=lambda wildcards: run.devices_of(wildcards.job),
        mem_mb=2000,
    params:
        config=run.paths.config,
    shell:
        "exec python -m segbench evaluate --config {params.config:q} --job {wildcards.job} --threads {threads}"
        " >{log:q} 2>&1"


rule gather:
    """Gather the rows, check that they are exactly those expected, and describe the run."""
    input:
        lambda wildcards: run.outcomes(),
        request=lambda wildcards: checked(run.request_gather),
        audit=run.paths.audit,
    output:
        scores=run.paths.scores,
        record=run.paths.run_record,
    log:
        run.paths.log("gather", "scores"),
    conda:
        NETWORK_ENVIRONMENT
    params:
        config=run.paths.config,
    shell:
        "python -m segbench gather --config {params.config:q} >{log:q} 2>&1"

# Predict and score each job's test cases, then gather all rows into the one table.


rule evaluate:
    """Predict and score one checkpoint, or one control, over its test cases."""
    input:
        trained=lambda wildcards: run.trained_of(wildcards.job),
        preprocessed=lambda wildcards: run.preprocessed_of(wildcards.job),
        splits=run.paths.splits,
    output:
        outcome=run.paths.evaluate("{job}") / "outcome.json",
        scores=run.paths.evaluate("{job}") / "scores.csv",
    log:
        run.paths.log("evaluate", "{job}"),
    benchmark:
        run.paths.benchmark("evaluate", "{job}")
    conda:
        "../../envs/segbench.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=2000,
    params:
        config=run.paths.config,
        settings=lambda wildcards: run.score_settings(wildcards.job),
        attempt=lambda wildcards: run.evaluate_attempt(wildcards.job),
    shell:
        "python -m segbench evaluate --config {params.config:q} --job {wildcards.job} --attempt {params.attempt}"
        " --threads {threads} >{log:q} 2>&1"


rule gather:
    """Gather the rows, check that they are exactly those expected, and describe the run."""
    input:
        trained=[run.paths.train(job.id) / "outcome.json" for job in training_jobs(run.config)],
        outcomes=[run.paths.evaluate(job.id) / "outcome.json" for job in evaluation_jobs(run.config)],
        scores=[run.paths.evaluate(job.id) / "scores.csv" for job in evaluation_jobs(run.config)],
        audit=run.paths.audit,
    output:
        scores=run.paths.scores,
        record=run.paths.run_record,
    log:
        run.paths.log("gather", "scores"),
    conda:
        "../../envs/segbench.yaml"
    params:
        config=run.paths.config,
        content=run.config_hash,
    shell:
        "python -m segbench gather --config {params.config:q} >{log:q} 2>&1"

# From raw volumes to preprocessed cases.


if run.config.data.phantom:

    rule phantom:
        """Write the synthetic world."""
        input:
            request=lambda wildcards: checked(run.request_phantom),
        output:
            checked(run.phantom_files),
        log:
            run.paths.log("phantom", "world"),
        benchmark:
            run.paths.benchmark("phantom", "world")
        conda:
            LIGHT_ENVIRONMENT
        threads: 2
        params:
            root=run.config.data_root,
            seed=run.config.data.phantom.seed,
            train=run.config.data.phantom.train_cases,
            test=run.config.data.phantom.test_cases,
            tasks=",".join(run.task_names),
        shell:
            "python -m segbench phantom --out {params.root:q} --seed {params.seed} --train {params.train}"
            " --test {params.test} --tasks {params.tasks} --workers {threads} >{log:q} 2>&1"


rule ingest:
    """Check all cases of a task and write its manifest."""
    input:
        request=lambda wildcards: checked(run.request_ingest, wildcards.task),
        data=lambda wildcards: run.data_files(wildcards.task),
    output:
        run.paths.manifest("{task}"),
    log:
        run.paths.log("ingest", "{task}"),
    benchmark:
        run.paths.benchmark("ingest", "{task}")
    conda:
        LIGHT_ENVIRONMENT
    params:
        config=run.paths.config,
    shell:
        "python -m segbench ingest --config {params.config:q} --task {wildcards.task} 2>&1 | tee {log:q}"


rule split:
    """Split all tasks by patient; training waits for every task's check."""
    input:
        request=lambda wildcards: checked(run.request_split),
        manifests=[run.paths.manifest(task) for task in run.task_names],
    output:
        run.paths.splits,
    log:
        run.paths.log("split", "splits"),
    conda:
        LIGHT_ENVIRONMENT
    params:
        config=run.paths.config,
    shell:
        "python -m segbench split --config {params.config:q} 2>&1 | tee {log:q}"


rule preprocess:
    """Orient, crop, resample and normalise the cases of a task into the shared store.

    The wildcard `recipe` is empty, or a dot and the recipe that a downstream model names instead of the task's own.
    """
    input:
        request=lambda wildcards: checked(run.request_preprocess, wildcards.task, wildcards.recipe[1:]),
        manifest=run.paths.manifest("{task}"),
        splits=run.paths.splits,
        audit=run.paths.audit,
    output:
        run.paths.preprocessed("{task}{recipe}"),
    log:
        run.paths.log("preprocess", "{task}{recipe}"),
    benchmark:
        run.paths.benchmark("preprocess", "{task}{recipe}")
    wildcard_constraints:
        recipe=rf"(?:\.{NAME_PATTERN})?",
    conda:
        LIGHT_ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
    params:
        config=run.paths.config,
        recipe=lambda wildcards: f"--recipe {wildcards.recipe[1:]}" if wildcards.recipe else "",
    shell:
        "python -m segbench preprocess --config {params.config:q} --task {wildcards.task} {params.recipe}"
        " --workers {threads} >{log:q} 2>&1"
